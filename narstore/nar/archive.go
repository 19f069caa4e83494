package nar

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nar-p2p/nar-p2p/narstore"
)

var _ narstore.NAR = (*Archive)(nil)

// Archive is the NAR of a file tree, as `nix-store --dump` would write it. It
// keeps about 50 bytes for each file, and reads contents from the tree when
// they are asked for.
//
// The tree must not change while its Archive is open. A file that is found to
// have another length, or to have gone, is narstore.ErrChanged: no read is ever
// cut short or filled up.
type Archive struct {
	root string
	size int64
	// nodes in the order of the archive.
	nodes []node
	// text holds the nodes' names, each followed by the symlink's target.
	text []byte
	// written is that of the regular file that was written to last.
	written time.Time
	files   handles
}

// node is one file, symlink or directory. In the archive it is its head (see
// appendHead), its contents if it is a regular file, zeros up to a multiple of
// 8, and as many ")" as fit before the next node: they close the node itself
// and the directories that end with it.
type node struct {
	// start is the offset of the head.
	start int64
	// size is the length of a regular file's contents or of a symlink's target.
	size int64
	// parent is the index of the directory; the root is its own parent.
	parent uint32
	// name is the offset of the name in text.
	name       uint32
	nameLen    uint8
	kind       Type
	executable bool
}

// closing is the string ")" as it stands in archives.
var closing = appendString(nil, ")")

// Open computes the layout of the NAR of the tree at root, which may be a
// directory, a regular file or a symlink. It reads directories and symlinks,
// and of the files only their metadata. The Archive keeps a descriptor in the
// tree open until Close, which protects a store path from garbage collection.
func Open(ctx context.Context, root string) (*Archive, error) {
	a := &Archive{root: filepath.Clean(root)}
	if err := a.lay(ctx); err != nil {
		a.Close()
		return nil, fmt.Errorf("nar: %w", err)
	}
	return a, nil
}

// Size returns the length of the archive in bytes.
func (a *Archive) Size() int64 { return a.size }

// Close releases the tree. Reads that are under way end as they would have.
func (a *Archive) Close() error {
	a.files.close()
	return nil
}

// ReadAt reads len(p) bytes of the archive from offset off on, as io.ReaderAt
// has it. Calls may run at the same time.
func (a *Archive) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("nar: %s: negative offset %d", a.root, off)
	}
	if off >= a.size {
		return 0, io.EOF
	}
	// The last node that starts at or before off.
	i := sort.Search(len(a.nodes), func(i int) bool { return a.nodes[i].start > off }) - 1
	w := window{free: p, skip: off - a.nodes[i].start}
	var scratch [512]byte
	for ; i < len(a.nodes) && len(w.free) > 0; i++ {
		if err := a.readNode(&w, uint32(i), scratch[:0]); err != nil {
			return len(p) - len(w.free), fmt.Errorf("nar: %w", err)
		}
	}
	if len(w.free) > 0 {
		return len(p) - len(w.free), io.EOF
	}
	return len(p), nil
}

// window is the part of an archive that a read has still to fill: what comes
// next goes to the start of free, but for its first skip bytes.
type window struct {
	free []byte
	skip int64
}

func (w *window) put(b []byte) {
	if int64(len(b)) <= w.skip {
		w.skip -= int64(len(b))
		return
	}
	n := copy(w.free, b[w.skip:])
	w.free, w.skip = w.free[n:], 0
}

// readNode puts everything from node i's start to the next node's into w.
func (a *Archive) readNode(w *window, i uint32, scratch []byte) error {
	n := &a.nodes[i]
	end := a.size
	if int(i)+1 < len(a.nodes) {
		end = a.nodes[i+1].start
	}
	head := a.appendHead(scratch, i)
	w.put(head)
	at := n.start + int64(len(head))
	if n.kind == Regular {
		if err := a.readContents(w, i); err != nil {
			return err
		}
		w.put(zeros[:padding(n.size)])
		at += n.size + padding(n.size)
	}
	for ; at < end && len(w.free) > 0; at += int64(len(closing)) {
		w.put(closing)
	}
	return nil
}

// readContents puts the contents of regular file i into w.
func (a *Archive) readContents(w *window, i uint32) error {
	size := a.nodes[i].size
	if w.skip >= size {
		w.skip -= size
		return nil
	}
	if len(w.free) == 0 {
		return nil
	}
	h, err := a.open(i)
	if err != nil {
		return err
	}
	defer a.files.release(h)
	if err := a.checkFile(h.fd, i); err != nil {
		return err
	}
	free := w.free[:min(int64(len(w.free)), size-w.skip)]
	w.free = w.free[len(free):]
	for len(free) > 0 {
		n, err := retry(func() (int, error) { return unix.Pread(h.fd, free, w.skip) })
		if err != nil {
			return a.pathError("read", i, err)
		}
		if n == 0 {
			return a.changed("read", i, fmt.Errorf("shorter than its %d bytes", size))
		}
		free, w.skip = free[n:], w.skip+int64(n)
	}
	w.skip = 0
	return nil
}

// checkFile reports a file that is no longer what it was when the layout was
// computed. It may well be another inode: `nix-store --optimise` replaces files
// by links to their equals.
func (a *Archive) checkFile(fd int, i uint32) error {
	var st unix.Stat_t
	if _, err := retry(func() (int, error) { return 0, unix.Fstat(fd, &st) }); err != nil {
		return a.pathError("stat", i, err)
	}
	if typeOf(&st) != Regular {
		return a.changed("read", i, errors.New("no longer a regular file"))
	}
	if st.Size != a.nodes[i].size {
		return a.changed("read", i, fmt.Errorf("has %d bytes now, had %d", st.Size, a.nodes[i].size))
	}
	return nil
}

// appendHead appends all that stands in the archive between the end of the node
// before and node i's contents, entries or ")".
func (a *Archive) appendHead(b []byte, i uint32) []byte {
	n := &a.nodes[i]
	if i == 0 {
		b = appendString(b, magic)
	} else {
		b = appendStrings(b, "entry", "(", "name")
		b = appendString(b, a.name(i))
		b = appendString(b, "node")
	}
	b = appendStrings(b, "(", "type", n.kind.String())
	switch n.kind {
	case Regular:
		if n.executable {
			b = appendStrings(b, "executable", "")
		}
		b = appendString(b, "contents")
		b = binary.LittleEndian.AppendUint64(b, uint64(n.size))
	case Symlink:
		b = appendString(b, "target")
		target := int64(n.name) + int64(n.nameLen)
		b = appendString(b, a.text[target:target+n.size])
	case Directory:
	}
	return b
}

// name returns the name of node i in its directory, or nothing for the root.
func (a *Archive) name(i uint32) []byte {
	n := &a.nodes[i]
	return a.text[n.name:][:n.nameLen]
}

// Written is when one of the files was last written to, as of when they were laid
// out; the zero time where there is none.
func (a *Archive) Written() time.Time { return a.written }

// path returns the place of node i on the disk.
func (a *Archive) path(i uint32) string {
	path := ""
	for ; i != 0; i = a.nodes[i].parent {
		path = "/" + string(a.name(i)) + path
	}
	return a.root + path
}

func (a *Archive) pathError(op string, i uint32, err error) error {
	return &fs.PathError{Op: op, Path: a.path(i), Err: err}
}

// changed is pathError for what is no longer as it was when the layout was
// computed.
func (a *Archive) changed(op string, i uint32, err error) error {
	return fmt.Errorf("%w: %w", narstore.ErrChanged, a.pathError(op, i, err))
}

// hasGone reports whether an error of opening a name says that something else, or
// nothing, has that name now.
func hasGone(err error) bool {
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO, unix.ESTALE} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// Dump writes the NAR of the tree at root to w.
func Dump(w io.Writer, root string) error {
	a, err := Open(context.Background(), root)
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = io.CopyBuffer(w, io.NewSectionReader(a, 0, a.Size()), make([]byte, 256<<10))
	return err
}
