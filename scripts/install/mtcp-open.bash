# Completion of mtcp-open: its options, and what they take.
_mtcp_open() {
  local word=${COMP_WORDS[COMP_CWORD]}
  case ${COMP_WORDS[COMP_CWORD - 1]} in
    -c) mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$word"; compgen -d -- "$word") ;;
    -s) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    -g) mapfile -t COMPREPLY < <(compgen -g -- "$word") ;;
    -u) mapfile -t COMPREPLY < <(compgen -u -- "$word") ;;
    -m) mapfile -t COMPREPLY < <(compgen -W '0660 0666' -- "$word") ;;
    -C) mapfile -t COMPREPLY < <(compgen -W "$(sed -n 's/^0:://p' /proc/[0-9]*/cgroup 2>/dev/null | sort -u)" -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W '-c -s -g -m -u -C' -- "$word") ;;
  esac
}
complete -o filenames -F _mtcp_open mtcp-open
