# Completion of mtcp-dump: its options, the processes that have the engine, files.
_mtcp_dump() {
  local word=${COMP_WORDS[COMP_CWORD]}
  case ${COMP_WORDS[COMP_CWORD - 1]} in
    -i) mapfile -t COMPREPLY < <(compgen -W "all $(grep -ls libmtcp_engine /proc/[0-9]*/maps 2>/dev/null | cut -d/ -f3)" -- "$word") ;;
    -w) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    *)
      if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-i -w -c -s -B --version --help' -- "$word")
      else
        mapfile -t COMPREPLY < <(compgen -W 'tcp host port net src dst and or not icmp arp ip ip6' -- "$word")
      fi
      ;;
  esac
}
complete -o filenames -F _mtcp_dump mtcp-dump
