# Completion of mtcp-run: its options, then a program and what completes that program.
_mtcp_run() {
  local i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -c) ((i++)) ;;
      -*) ;;
      *)
        if declare -F _command_offset >/dev/null; then _command_offset $i; else mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"); fi
        return
        ;;
    esac
  done
  local word=${COMP_WORDS[COMP_CWORD]}
  if [ "${COMP_WORDS[COMP_CWORD - 1]}" = -c ]; then
    mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$word"; compgen -d -- "$word")
  elif [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W '-c -n -v -V -h' -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -c -- "$word")
  fi
}
complete -o filenames -F _mtcp_run mtcp-run
