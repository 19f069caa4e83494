package nar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The modes that everything in a Nix store has. Directories can be written to
// until all is there.
const (
	fileMode       fs.FileMode = 0o444
	executableMode fs.FileMode = 0o555
	directoryMode  fs.FileMode = 0o555
	unfinishedMode fs.FileMode = 0o700
)

// Unpack writes the tree in the archive r to dest, which must not exist, and
// nothing anywhere else. Modes are those of a Nix store. On failure, which
// includes any byte that Reader refuses, nothing stays behind. It does not
// bound what r may write: that is for the caller, by the length of r.
//
// When ctx ends Unpack returns as soon as r gives it something to read.
func Unpack(ctx context.Context, r io.Reader, dest string) error {
	dest = filepath.Clean(dest)
	parent, err := os.OpenRoot(filepath.Dir(dest))
	if err != nil {
		return fmt.Errorf("nar: unpack: %w", err)
	}
	defer parent.Close()
	u := &unpacker{base: filepath.Base(dest), dirs: []*os.Root{parent}, buf: make([]byte, 128<<10)}
	err = u.unpack(ctx, NewReader(r))
	u.leave(1)
	if err != nil && u.made {
		err = errors.Join(err, parent.RemoveAll(u.base))
	}
	if err != nil {
		return fmt.Errorf("nar: unpack to %s: %w", dest, err)
	}
	return nil
}

type unpacker struct {
	// base is the name of the tree, in dirs[0].
	base string
	// made is true from the moment on when base is ours.
	made bool
	// dirs are the directories from the one that dest is in, over dest itself,
	// down to the one that is being filled.
	dirs []*os.Root
	buf  []byte
}

func (u *unpacker) unpack(ctx context.Context, r *Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := u.node(ctx, r, h); err != nil {
			return err
		}
	}
	u.leave(2)
	if len(u.dirs) < 2 {
		return nil // The tree is a file or a symlink.
	}
	if err := chmodDirs(u.dirs[1], directoryMode); err != nil {
		return errors.Join(err, chmodDirs(u.dirs[1], unfinishedMode))
	}
	return nil
}

// leave closes the directories below the first depth ones.
func (u *unpacker) leave(depth int) {
	for _, dir := range u.dirs[min(depth, len(u.dirs)):] {
		dir.Close()
	}
	u.dirs = u.dirs[:min(depth, len(u.dirs))]
}

func (u *unpacker) node(ctx context.Context, r io.Reader, h *Header) error {
	name := u.base
	if h.Path != "" {
		u.leave(strings.Count(h.Path, "/") + 2)
		name = h.Path[strings.LastIndexByte(h.Path, '/')+1:]
	}
	dir := u.dirs[len(u.dirs)-1]
	switch h.Type {
	case Symlink:
		if err := dir.Symlink(h.Target, name); err != nil {
			return err
		}
		u.made = true
	case Directory:
		if err := dir.Mkdir(name, unfinishedMode); err != nil {
			return err
		}
		u.made = true
		sub, err := dir.OpenRoot(name)
		if err != nil {
			return err
		}
		u.dirs = append(u.dirs, sub)
	case Regular:
		f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, unfinishedMode)
		if err != nil {
			return err
		}
		u.made = true
		mode := fileMode
		if h.Executable {
			mode = executableMode
		}
		return errors.Join(u.contents(ctx, f, r), f.Chmod(mode), f.Close())
	}
	return nil
}

func (u *unpacker) contents(ctx context.Context, w io.Writer, r io.Reader) error {
	for {
		n, err := r.Read(u.buf)
		if _, err := w.Write(u.buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// chmodDirs gives a mode to root and all directories below.
func chmodDirs(root *os.Root, mode fs.FileMode) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1)
	if err := errors.Join(err, dir.Chmod(mode), dir.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub, err := root.OpenRoot(e.Name())
		if err != nil {
			return err
		}
		if err := errors.Join(chmodDirs(sub, mode), sub.Close()); err != nil {
			return err
		}
	}
	return nil
}
