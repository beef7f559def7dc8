# Completion of mtcp-ab: its options, presets and sides, and files.
_mtcp_ab() {
  local word=${COMP_WORDS[COMP_CWORD]}
  case ${COMP_WORDS[COMP_CWORD-1]} in
    --preset) mapfile -t COMPREPLY < <(compgen -W 'nginx nginx-latency echo-latency redis memcached haproxy iperf3 pgbench' -- "$word") ;;
    --metric) mapfile -t COMPREPLY < <(compgen -W 'open_load wrk ab h2load redis-benchmark iperf3 pgbench sysbench memcaslap time' -- "$word") ;;
    --sides) mapfile -t COMPREPLY < <(compgen -W 'kernel loopback sockmap busy veth xdp share memif' -- "$word") ;;
    --shim | --json | --csv | --html) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    *) mapfile -t COMPREPLY < <(compgen -W '--preset --server --client --metric --port --sides --attach --client-on --rounds --seconds --rate --timeout --no-warm-up --no-huge-pages --realtime --shim --json --csv --html --help' -- "$word") ;;
  esac
}
complete -F _mtcp_ab mtcp-ab
