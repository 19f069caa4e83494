package nar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nar-p2p/nar-p2p/narstore"
)

// entry is what lstat and readlink say of one name in a directory.
type entry struct {
	name       string
	target     string
	size       int64
	kind       Type
	executable bool
	// written is when a regular file was last written to.
	written time.Time
}

// listing is a directory whose entries are being laid out.
type listing struct {
	node    uint32
	pathLen int
	// rest are the entries to come, in order.
	rest []entry
}

// lay fills a with the layout of the tree at a.root.
func (a *Archive) lay(ctx context.Context) error {
	root, err := a.openRoot()
	if err != nil {
		if hasGone(err) {
			err = fmt.Errorf("%w: %w", narstore.ErrChanged, err)
		}
		return &fs.PathError{Op: "open", Path: a.root, Err: err}
	}
	if err := a.addNode(0, root); err != nil {
		return err
	}
	var open []listing
	if root.kind == Directory {
		rest, err := a.list(ctx, 0)
		if err != nil {
			return err
		}
		open = append(open, listing{rest: rest})
	}
	for len(open) > 0 {
		dir := &open[len(open)-1]
		if len(dir.rest) == 0 {
			a.endNode(dir.node)
			open = open[:len(open)-1]
			continue
		}
		e := dir.rest[0]
		dir.rest = dir.rest[1:]
		pathLen := dir.pathLen + len("/") + len(e.name)
		i := uint32(len(a.nodes))
		if err := a.addNode(dir.node, e); err != nil {
			return err
		}
		if pathLen > len("/")+maxPathLen {
			return a.pathError("open", i, fmt.Errorf("path is longer than %d bytes", maxPathLen))
		}
		if e.kind != Directory {
			continue
		}
		rest, err := a.list(ctx, i)
		if err != nil {
			return err
		}
		open = append(open, listing{node: i, pathLen: pathLen, rest: rest})
	}
	a.nodes, a.text = slices.Clip(a.nodes), slices.Clip(a.text)
	return nil
}

// openRoot describes the tree's root and opens it, unless it is a symlink: then
// the layout is all there is to read.
func (a *Archive) openRoot() (entry, error) {
	e, err := statAt(unix.AT_FDCWD, a.root)
	if err != nil || e.kind == Symlink {
		e.name = ""
		return e, err
	}
	fd, err := openat(unix.AT_FDCWD, a.root, e.kind)
	if err != nil {
		return entry{}, err
	}
	a.files.root = &handle{fd: fd, users: 1}
	e.name = ""
	return e, nil
}

// addNode adds a node to the layout: the whole of it, or of a directory its head.
func (a *Archive) addNode(parent uint32, e entry) error {
	i := uint32(len(a.nodes))
	if i == math.MaxUint32 || len(a.text) > math.MaxUint32-maxNameLen-maxTargetLen {
		return &fs.PathError{Op: "open", Path: a.root, Err: errors.New("too many files")}
	}
	a.nodes = append(a.nodes, node{
		start:      a.size,
		size:       e.size,
		parent:     parent,
		name:       uint32(len(a.text)),
		nameLen:    uint8(len(e.name)),
		kind:       e.kind,
		executable: e.executable,
	})
	a.text = append(append(a.text, e.name...), e.target...)
	var scratch [512]byte
	a.size += int64(len(a.appendHead(scratch[:0], i)))
	switch e.kind {
	case Regular:
		if e.written.After(a.written) {
			a.written = e.written
		}
		// Sparse files can have any length, and offsets must not overflow. The
		// other half is more than all heads together can take.
		if e.size > math.MaxInt64/2-a.size {
			return a.pathError("open", i, errors.New("archive is longer than 4 EiB"))
		}
		a.size += e.size + padding(e.size)
		a.endNode(i)
	case Symlink:
		a.endNode(i)
	case Directory:
	}
	return nil
}

// endNode adds the ")" of node i and of the entry that it stands in.
func (a *Archive) endNode(i uint32) {
	a.size += int64(len(closing))
	if i != 0 {
		a.size += int64(len(closing))
	}
}

// list returns the entries of directory i in the order of the archive.
func (a *Archive) list(ctx context.Context, i uint32) ([]entry, error) {
	h, err := a.open(i)
	if err != nil {
		return nil, err
	}
	defer a.files.release(h)
	names, err := readNames(ctx, h.fd)
	if err != nil {
		return nil, a.pathError("list", i, err)
	}
	slices.Sort(names)
	entries := make([]entry, len(names))
	for j, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, a.pathError("list", i, err)
		}
		if entries[j], err = statAt(h.fd, name); err != nil {
			if hasGone(err) {
				err = fmt.Errorf("%w: %w", narstore.ErrChanged, err)
			}
			return nil, &fs.PathError{Op: "stat", Path: a.path(i) + "/" + name, Err: err}
		}
		if err := checkName(name); err != nil {
			return nil, a.pathError("list", i, err)
		}
	}
	return entries, nil
}

// readNames returns the names in a directory that was not read before.
func readNames(ctx context.Context, fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 16<<10)
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// statAt describes name in a directory, without following it.
func statAt(dir int, name string) (entry, error) {
	var st unix.Stat_t
	_, err := retry(func() (int, error) { return 0, unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return entry{}, err
	}
	e := entry{name: name, kind: typeOf(&st)}
	switch e.kind {
	case Regular:
		// Only the owner's bit counts (libutil/archive.cc).
		e.size, e.executable = st.Size, st.Mode&unix.S_IXUSR != 0
		e.written = time.Unix(st.Mtim.Unix())
	case Symlink:
		if e.target, err = readlinkAt(dir, name); err != nil {
			return entry{}, err
		}
		e.size = int64(len(e.target))
	case Directory:
	default:
		return entry{}, errors.New("neither a regular file nor a symlink nor a directory")
	}
	return e, nil
}

func readlinkAt(dir int, name string) (string, error) {
	var buf [maxTargetLen + 1]byte
	n, err := retry(func() (int, error) { return unix.Readlinkat(dir, name, buf[:]) })
	if err != nil {
		return "", err
	}
	target := string(buf[:n])
	return target, checkTarget(target)
}

// typeOf returns 0 for what a NAR cannot hold.
func typeOf(st *unix.Stat_t) Type {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFDIR:
		return Directory
	}
	return 0
}
