// Opens a TCP socket. Built twice: with the marks that Go's linker leaves in a program, and statically linked.
#include <sys/socket.h>

#ifdef LIKE_GO
__asm__(
    ".pushsection .note.go.buildid,\"a\",@note\n.long 4\n.long 8\n.long 4\n.asciz \"Go\\0\"\n.ascii \"build-id\"\n.popsection\n"
    ".pushsection .go.buildinfo,\"aw\"\n.ascii \"\\377 Go buildinf:\"\n.popsection\n");
#endif

int main() { return socket(AF_INET, SOCK_STREAM, 0) < 0 ? 1 : 0; }
