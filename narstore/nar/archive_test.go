package nar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
)

func TestArchiveIsWhatNixDumps(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		name string
		root func() string
	}{
		{"odd names, modes and links", func() string { return oddTree(t) }},
		{"empty directory", func() string {
			mkdir(t, filepath.Join(dir, "empty"))
			return filepath.Join(dir, "empty")
		}},
		{"regular file", func() string {
			write(t, filepath.Join(dir, "file"), "contents", 0o644)
			return filepath.Join(dir, "file")
		}},
		{"executable", func() string {
			write(t, filepath.Join(dir, "executable"), "#!/bin/sh\n", 0o755)
			return filepath.Join(dir, "executable")
		}},
		{"empty file", func() string {
			write(t, filepath.Join(dir, "nothing"), "", 0o644)
			return filepath.Join(dir, "nothing")
		}},
		{"symlink", func() string {
			symlink(t, "nowhere", filepath.Join(dir, "symlink"))
			return filepath.Join(dir, "symlink")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := test.root()
			compare(t, open(t, root), nixDump(t, root))
		})
	}
}

func TestTwentyThousandFiles(t *testing.T) {
	const limit = 2 << 20
	root := manyFiles(t, 20_000)
	before := heap()
	a := open(t, root)
	if got := heap() - before; got > limit {
		t.Errorf("the layout takes %d bytes, want at most %d", got, limit)
	}
	compare(t, a, nixDump(t, root))
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func compare(t *testing.T, a *nar.Archive, want []byte) {
	t.Helper()
	if a.Size() != int64(len(want)) {
		t.Errorf("Size() = %d, want %d", a.Size(), len(want))
	}
	if got := readAll(t, a); !bytes.Equal(got, want) {
		t.Errorf("the archive differs from nix-store --dump at byte %d of %d", firstDifference(got, want), len(want))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestReadAtRanges(t *testing.T) {
	a := open(t, oddTree(t))
	want := readAll(t, a)
	check := func(t *testing.T, off, length int) {
		t.Helper()
		p := bytes.Repeat([]byte{0xaa}, length)
		n, err := a.ReadAt(p, int64(off))
		wantErr := error(nil)
		if off+length > len(want) || off == len(want) {
			wantErr = io.EOF
		}
		if wantN := min(length, len(want)-off); n != wantN || !errors.Is(err, wantErr) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v, want %d, %v", length, off, n, err, wantN, wantErr)
		}
		if !bytes.Equal(p[:n], want[off:off+n]) {
			t.Fatalf("ReadAt(%d bytes, %d) differs at %d", length, off, off+firstDifference(p, want[off:]))
		}
	}
	t.Run("every offset", func(t *testing.T) {
		for off := range 20_000 {
			check(t, off, 9)
			check(t, len(want)-off, 21)
		}
	})
	t.Run("random", func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for range 2_000 {
			check(t, random.IntN(len(want)+1), random.IntN(1+random.IntN(300_000)))
		}
	})
	t.Run("outside", func(t *testing.T) {
		if n, err := a.ReadAt(make([]byte, 1), -1); n != 0 || err == nil {
			t.Errorf("ReadAt(1 byte, -1) = %d, %v, want an error", n, err)
		}
		if n, err := a.ReadAt(make([]byte, 1), a.Size()+1); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("ReadAt(1 byte, Size()+1) = %d, %v, want 0, EOF", n, err)
		}
	})
}

func TestReadAtConcurrently(t *testing.T) {
	root := manyFiles(t, 2_000)
	write(t, filepath.Join(root, "large"), strings.Repeat("0123456789", 200_000), 0o444)
	a := open(t, root)
	want := readAll(t, a)
	var wg sync.WaitGroup
	for seed := range uint64(16) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, 0))
			p := make([]byte, 100_000)
			for range 50 {
				off := random.IntN(len(want))
				n, err := a.ReadAt(p, int64(off))
				if err != nil && !errors.Is(err, io.EOF) {
					t.Error(err)
				} else if !bytes.Equal(p[:n], want[off:off+n]) {
					t.Errorf("ReadAt(%d bytes, %d) differs", len(p), off)
				}
			}
		})
	}
	wg.Wait()
}

func TestCloseDuringReads(t *testing.T) {
	root := manyFiles(t, 500)
	descriptors := openDescriptors(t)
	a := open(t, root)
	want := readAll(t, a)
	started := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for range cap(started) {
		wg.Go(func() {
			for i := 0; ; i++ {
				p := make([]byte, len(want))
				n, err := a.ReadAt(p, 0)
				if !bytes.Equal(p[:n], want[:n]) {
					t.Error("wrong bytes")
				}
				if i == 0 {
					started <- struct{}{}
				}
				if errors.Is(err, fs.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range cap(started) {
		<-started
	}
	a.Close()
	wg.Wait()
	if got := openDescriptors(t); got != descriptors {
		t.Errorf("%d descriptors are open after Close, want %d as before Open", got, descriptors)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close() = %v", err)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDescriptorsAreFew(t *testing.T) {
	before := openDescriptors(t)
	a := open(t, manyFiles(t, 1_000))
	readAll(t, a)
	if got := openDescriptors(t) - before; got > 5 {
		t.Errorf("%d descriptors are open after reading 1,000 files, want at most 5", got)
	}
}

func TestChangedTree(t *testing.T) {
	tests := []struct {
		name   string
		change func(path string) error
		want   error
	}{
		{"longer", func(path string) error { return os.WriteFile(path, []byte("0123456789+"), 0o644) }, nil},
		{"shorter", func(path string) error { return os.WriteFile(path, []byte("012345678"), 0o644) }, nil},
		{"gone", os.Remove, fs.ErrNotExist},
		{"directory gone", func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, fs.ErrNotExist},
		{"a symlink to its like", func(path string) error {
			return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path))
		}, nil},
		{"a FIFO", func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o644)) }, nil},
	}
	for _, read := range []bool{false, true} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s, read before: %v", test.name, read), func(t *testing.T) {
				root := t.TempDir()
				path := filepath.Join(root, "dir", "file")
				write(t, path, "0123456789", 0o644)
				for i := range 8 {
					write(t, filepath.Join(root, fmt.Sprintf("other%d", i)), "other", 0o644)
				}
				a := open(t, root)
				if read {
					// Leaves descriptors of the other files behind.
					readAll(t, a)
				}
				if err := test.change(path); err != nil {
					t.Fatal(err)
				}
				p := make([]byte, a.Size())
				n, err := a.ReadAt(p, 0)
				if err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
					t.Fatalf("ReadAt after the change = %d, %v, want an error naming %s", n, err, path)
				}
				if !errors.Is(err, narstore.ErrChanged) || test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("ReadAt after the change: %v, want %v", err, test.want)
				}
				if bytes.Contains(p[n:], []byte("01")) {
					t.Errorf("ReadAt filled more than the %d bytes that it returned", n)
				}
			})
		}
	}
}

func TestSymlinksAreNotFollowed(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "dir", "file")
	write(t, path, "0123456789", 0o644)
	for i := range 8 {
		write(t, filepath.Join(root, fmt.Sprintf("other%d", i)), "other", 0o644)
	}
	a := open(t, root)
	readAll(t, a) // The descriptor of dir is closed for those of the others.
	if err := os.Rename(filepath.Dir(path), filepath.Join(root, "moved")); err != nil {
		t.Fatal(err)
	}
	symlink(t, "moved", filepath.Dir(path))
	if n, err := a.ReadAt(make([]byte, a.Size()), 0); err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
		t.Errorf("ReadAt through a symlink = %d, %v, want an error naming it", n, err)
	}
}

func TestLengthIsCheckedOnEveryRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "0123456789", 0o644)
	a := open(t, path)
	p := make([]byte, a.Size())
	if _, err := a.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	write(t, path, "", 0o644)
	if n, err := a.ReadAt(p, 0); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("ReadAt of a file that was cut = %d, %v, want an error naming it", n, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo", "fifo")
	mkdir(t, filepath.Dir(fifo))
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket", "s")
	mkdir(t, filepath.Dir(socket))
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, path := range []string{fifo, filepath.Dir(fifo), socket, filepath.Dir(socket), "/dev/null", filepath.Join(dir, "absent")} {
		if a, err := nar.Open(t.Context(), path); err == nil {
			a.Close()
			t.Errorf("Open(%s) = nil, want an error", path)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s): %v does not name it", path, err)
		}
	}
	if _, err := nar.Open(t.Context(), filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing: %v, want ErrNotExist", err)
	}
}

func TestOpenStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nar.Open(ctx, oddTree(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("Open(cancelled) = %v, want Canceled", err)
	}
}

func TestOpenArchiveIsNotCollected(t *testing.T) {
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"file", "directory"} {
		t.Run(kind, func(t *testing.T) {
			source := filepath.Join(t.TempDir(), kind)
			if kind == "directory" {
				write(t, filepath.Join(source, "sub", "file"), "contents", 0o644)
			} else {
				write(t, source, "contents", 0o644)
			}
			out, err := nix(t, home, "nix-store", "--add", source)
			if err != nil {
				t.Fatal(err)
			}
			path := strings.TrimSpace(string(out))
			a := open(t, path)
			if _, err := nix(t, home, "nix-store", "--delete", path); err == nil || !strings.Contains(err.Error(), "still alive") {
				t.Fatalf("nix-store --delete of an open path: %v, want \"still alive\"", err)
			}
			readAll(t, a)
			a.Close()
			if _, err := nix(t, home, "nix-store", "--delete", path); err != nil {
				t.Fatalf("nix-store --delete after Close: %v", err)
			}
		})
	}
}
