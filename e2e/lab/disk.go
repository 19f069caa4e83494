package lab

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Disk is a file system of its own, that can be filled up.
type Disk struct {
	// Dir is where it is.
	Dir string

	lab *Lab
}

// filler is the file that takes the room.
const filler = "filler"

// Disk mounts a file system of so many bytes in a new folder of the lab. It needs
// root.
func (l *Lab) Disk(name string, size int64) *Disk {
	l.t.Helper()
	d := &Disk{Dir: l.Dir(name), lab: l}
	if err := unix.Mount("tmpfs", d.Dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		l.t.Fatalf("lab: mount: %v", err)
	}
	l.t.Cleanup(func() {
		if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
			l.t.Logf("lab: unmount: %v", err)
		}
	})
	return d
}

// Fill leaves so many bytes, or none.
func (d *Disk) Fill(left int64) {
	d.lab.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Dir, filler), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.lab.t.Fatalf("lab: %v", err)
	}
	defer f.Close()
	var disk unix.Statfs_t
	if err := unix.Statfs(d.Dir, &disk); err != nil {
		d.lab.t.Fatalf("lab: statfs: %v", err)
	}
	room := int64(disk.Bavail)*disk.Bsize - left
	if left == 0 {
		room = math.MaxInt64
	}
	if _, err := io.CopyN(f, zeros{}, room); err != nil && (left > 0 || !errors.Is(err, unix.ENOSPC)) {
		d.lab.t.Fatalf("lab: fill: %v", err)
	}
}

// Free undoes Fill.
func (d *Disk) Free() {
	d.lab.t.Helper()
	if err := os.Remove(filepath.Join(d.Dir, filler)); err != nil {
		d.lab.t.Fatalf("lab: %v", err)
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
