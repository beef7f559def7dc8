# Completion of mtcp-stat: its options, and the processes that have the engine.
_mtcp_stat() {
  local word=${COMP_WORDS[COMP_CWORD]}
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '-a -c -n -i -z -r -w -h --all --counters --connections --info --zeros --raw --json --prometheus --listen --top --watch --state --port --local --peer --version --help' -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "$(grep -ls libmtcp_engine /proc/[0-9]*/maps 2>/dev/null | cut -d/ -f3)" -- "$word")
  fi
}
complete -F _mtcp_stat mtcp-stat
