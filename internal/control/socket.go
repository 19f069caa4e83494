package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// Group is the group whose members may control the daemon, where it exists.
const Group = "nar-p2p"

// ErrRunning says that another daemon answers on the socket.
var ErrRunning = errors.New("another nar-p2pd is running")

// dialTimeout bounds a connection to a socket on this machine.
const dialTimeout = 5 * time.Second

// Listen makes the control socket at path, with mode 0660 and the group
// nar-p2p where that exists and the process may give it, and else with mode 0600:
// a group of the process's own may be everybody's. The socket of a daemon that
// has died is replaced; a live one is ErrRunning. Closing the listener removes the
// socket.
func Listen(ctx context.Context, path string, log *zap.Logger) (net.Listener, error) {
	l, err := listen(ctx, path, log.Named("control"))
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return l, nil
}

func listen(ctx context.Context, path string, log *zap.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := checkFree(ctx, path); err != nil {
		return nil, err
	}
	// The socket gets its mode under another name, so that it is never open to
	// others under its own.
	unfinished := path + "~"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", unfinished)
	if err != nil {
		return nil, err
	}
	unix, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is not a unix listener", l), l.Close())
	}
	unix.SetUnlinkOnClose(false)
	err = os.Chmod(unfinished, 0o600)
	given, groupErr := giveToGroup(unfinished, log)
	if given {
		err = errors.Join(err, os.Chmod(unfinished, 0o660))
	}
	if err := errors.Join(err, groupErr, os.Rename(unfinished, path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{Listener: l, path: path}, nil
}

// checkFree wants nobody to answer at path.
func checkFree(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way: it is not a socket", path)
	}
	conn, err := dial(ctx, path)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("%w: it answers at %s", ErrRunning, path), conn.Close())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
}

// giveToGroup gives the socket to Group, if it may. An unprivileged daemon that is
// not a member itself serves its own user only.
func giveToGroup(path string, log *zap.Logger) (given bool, err error) {
	gid := groupID()
	switch gid {
	case noGroup:
		return false, nil
	case os.Getegid():
		return true, nil // It has it already, and a sandbox may forbid to ask for that.
	}
	err = os.Chown(path, -1, gid)
	if errors.Is(err, fs.ErrPermission) {
		log.Info("control socket is for this user only", zap.String("group", Group))
		return false, nil
	}
	return err == nil, err
}

// noGroup stands for a group that does not exist.
const noGroup = -1

// groupID returns the number of Group, or noGroup.
func groupID() int {
	group, err := user.LookupGroup(Group)
	if err != nil {
		return noGroup
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return noGroup
	}
	return gid
}

type listener struct {
	net.Listener
	path string
}

// Close removes the socket first, so that no client finds one that nobody
// answers.
func (l *listener) Close() error {
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.Listener.Close())
}
