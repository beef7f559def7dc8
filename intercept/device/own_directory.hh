// A directory that belongs to the user of this process: what lies there no other user can have put there, or keep from
// being put there.
#pragma once

namespace mtcp::intercept {

// Its descriptor, close-on-exec, or -errno. /run/mtcp for root; for others the first of /tmp/mtcp-UID,
// /tmp/mtcp-UID.1 ... that is theirs, or could be made: in /tmp others may have taken the names.
int open_own_directory();

}  // namespace mtcp::intercept
