package nar

import (
	"errors"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// maxIdle is how many descriptors an Archive keeps open, apart from its root's,
// for the read that comes next. A reader that goes through the archive uses
// two: the directory and the file.
const maxIdle = 4

// handle is an open descriptor of a node, in use by any number of reads.
type handle struct {
	node  uint32
	fd    int
	users int
}

// handles are the descriptors of an Archive that are open.
type handles struct {
	mu     sync.Mutex
	closed bool
	// root is open for as long as the Archive is; nil where it is a symlink.
	root *handle
	// recent are the others, the most recently used first. Being listed here
	// counts as a use, so that a handle without users is always closed.
	recent []*handle
}

// open returns the handle of file or directory i, for which the caller calls
// release. It goes down from the root one name at a time and so never follows a
// symlink.
func (a *Archive) open(i uint32) (*handle, error) {
	h, err := a.files.get(i)
	if h != nil || err != nil {
		return h, err
	}
	dir, err := a.open(a.nodes[i].parent)
	if err != nil {
		return nil, err
	}
	defer a.files.release(dir)
	fd, err := openat(dir.fd, string(a.name(i)), a.nodes[i].kind)
	switch {
	case err != nil && hasGone(err):
		return nil, a.changed("open", i, err)
	case err != nil:
		return nil, a.pathError("open", i, err)
	}
	return a.files.add(i, fd), nil
}

// get returns the handle of node i if it is open. It is nil if not.
func (s *handles) get(i uint32) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	if i == 0 {
		s.root.users++
		return s.root, nil
	}
	at := slices.IndexFunc(s.recent, func(h *handle) bool { return h.node == i })
	if at < 0 {
		return nil, nil
	}
	h := s.recent[at]
	h.users++
	copy(s.recent[1:at+1], s.recent[:at])
	s.recent[0] = h
	return h, nil
}

// add takes over fd, of node i, and returns the handle in use.
func (s *handles) add(i uint32, fd int) *handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &handle{node: i, fd: fd, users: 1}
	if s.closed {
		return h
	}
	if len(s.recent) == maxIdle {
		s.drop(s.recent[maxIdle-1])
		s.recent = s.recent[:maxIdle-1]
	}
	h.users++
	s.recent = slices.Insert(s.recent, 0, h)
	return h
}

// release ends a use that get or add began.
func (s *handles) release(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(h)
}

// drop is release with s.mu held.
func (s *handles) drop(h *handle) {
	if h.users--; h.users == 0 {
		// Nothing was written that a failing close could lose.
		_ = unix.Close(h.fd)
	}
}

func (s *handles) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, h := range s.recent {
		s.drop(h)
	}
	s.recent = nil
	if s.root != nil {
		s.drop(s.root)
	}
}

// openat opens a regular file or a directory for reading, but never what a
// symlink points to. O_NONBLOCK is for a FIFO that took the file's place.
func openat(dir int, name string, kind Type) (int, error) {
	flags := unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if kind == Directory {
		flags |= unix.O_DIRECTORY
	}
	return retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
}

// retry repeats a system call that a signal interrupts, as some file systems
// let happen.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
