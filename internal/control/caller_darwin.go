package control

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func callerAt(fd int) (*caller, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	who := &caller{uid: int(cred.Uid)}
	for _, gid := range cred.Groups[:min(int(cred.Ngroups), len(cred.Groups))] {
		who.groups = append(who.groups, int(gid))
	}
	// Only the log has a use for it.
	who.pid, _ = unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	return who, nil
}
