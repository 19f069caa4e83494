package control

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxGroups is how many groups a process can be in, NGROUPS_MAX.
const maxGroups = 65536

func callerAt(fd int) (*caller, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	groups, err := groupsAt(fd)
	if err != nil {
		return nil, fmt.Errorf("groups of the peer: %w", err)
	}
	return &caller{pid: int(cred.Pid), uid: int(cred.Uid), groups: append(groups, int(cred.Gid))}, nil
}

// groupsAt asks for the supplementary groups. Package unix has no call for an
// option that is a list of numbers.
func groupsAt(fd int) ([]int, error) {
	// Most are in a few; the kernel says how many there are where that is too short.
	list := make([]uint32, 64)
	for {
		size := uint32(len(list)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size / 4)
		switch {
		case errno == 0 && n <= len(list):
			groups := make([]int, n)
			for i, gid := range list[:n] {
				groups[i] = int(gid)
			}
			return groups, nil
		case errno != unix.ERANGE || n <= len(list) || n > maxGroups:
			return nil, errno
		}
		list = make([]uint32, n)
	}
}
