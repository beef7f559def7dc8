"""A side of the comparison: how a server and a client are joined, and what they run on."""

from system import Namespace, connect_namespaces


class Side:
    """Says with which words in front a server or a client is started, and where the server is reached. Each has `address`,
    `server_namespace` and `client_namespace`."""

    name = title = ""
    wire = "veth"     # that both programs use: only figures of one wire are compared with each other without a word
    on_kernel = False  # nothing runs under the shim
    client_elsewhere = False  # on another host: what it costs there is not known here
    realtime = False  # for all sides: ahead of everything else on the machine
    server_program = ""  # for all sides: its name, for servers that give up root before they listen
    workers = 1       # for all sides: of the server, and as many clients; several share both processors
    server_environment = client_environment = None  # what puts it on the stack

    def __init__(self, cpus):
        self.server_cpu, self.client_cpu = cpus if self.workers == 1 else (",".join(map(str, cpus)),) * 2

    def server_words(self):
        """Before the server's command line."""
        return pinned(self.server_namespace, self.server_cpu, self.server_environment)

    def client_words(self):
        """Before the client's command line."""
        return pinned(self.client_namespace, self.client_cpu, self.client_environment)

    def for_client(self, words):
        """The command line that runs these words at the client's end."""
        return [*self.client_words(), *words]

    def join(self, tag, cleanup, client_address):
        """A namespace for each end and a veth pair with all of its offloads. What is the server's address is the side's own to say."""
        self.server_namespace = Namespace(f"{tag}s", cleanup)
        self.client_namespace = Namespace(f"{tag}c", cleanup)
        connect_namespaces(self.server_namespace, self.client_namespace)
        self.client_namespace.run("ip", "address", "add", f"{client_address}/24", "dev", "wire")

    def remark(self):
        """What a reader must know of it, once all is measured; "" if nothing."""
        return ""


def pinned(namespace, cpu, environment=None):
    """`namespace`: None for where we are."""
    words = [*(namespace.prefix() if namespace else ()), "taskset", "-c", str(cpu)]
    if Side.realtime:
        words += ["chrt", "-f", "1"]
    if environment:
        words += ["env", *(f"{key}={value}" for key, value in environment.items())]
    return words
