package dircache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	narinfoSuffix = ".narinfo"
	// pageEntries is how many directory entries one page looks at.
	pageEntries = 1024
	// coarseTick is the coarsest step in which a file system counts time (FAT).
	// A directory changed within the last one may change again without its
	// time showing it.
	coarseTick = 2 * time.Second
	// relist is when all files are looked at again, even if the directory has
	// not changed, for records that were overwritten in place.
	relist = 10 * time.Minute
)

// Follow implements narstore.Store. Changes show in the directory's time, which
// costs nothing to look at; a listing takes 0.1 s for 10,000 records, or 0.25 s
// where they are new.
func (s *Store) Follow(ctx context.Context, f func(narstore.Update) error) error {
	w := &watcher{store: s, Follower: follow.New(f, s.log)}
	if err := w.Run(ctx, func() time.Duration { return s.cfg.Poll }, w.look); err != nil {
		return fmt.Errorf("dircache: follow: %w", err)
	}
	return nil
}

// watcher is the state of one Follow.
type watcher struct {
	*follow.Follower

	store *Store
	// dir is the directory as it was before the last listing, or nil if it may
	// have changed since without its time showing it.
	dir    fs.FileInfo
	listed time.Time
}

// look finds out whether the directory has changed, and tells of it.
func (w *watcher) look(ctx context.Context) error {
	return w.store.in(func(root *os.Root) error {
		dir, err := root.Stat(".")
		if err != nil {
			return err
		}
		start := time.Now()
		same := w.dir != nil && os.SameFile(dir, w.dir) && dir.ModTime().Equal(w.dir.ModTime())
		if same && start.Sub(w.listed) < relist || !w.Pace.Due() {
			return nil
		}
		err = w.Paced(func() error { return w.list(ctx, root) })
		w.dir = nil
		if err == nil && start.Sub(dir.ModTime()).Abs() > coarseTick {
			w.dir, w.listed = dir, start
		}
		return err
	})
}

// list goes through the directory, and tells of what the ledger does not know.
func (w *watcher) list(ctx context.Context, root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	w.Ledger.Begin()
	for {
		entries, err := dir.ReadDir(pageEntries)
		end := errors.Is(err, io.EOF)
		if err != nil && !end {
			return err
		}
		p := follow.Page{End: end, Complete: end}
		for _, entry := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if rec, ok := w.read(root, entry.Name()); ok {
				p.Records = append(p.Records, rec)
			}
		}
		if err := w.Tell(p); err != nil || end {
			return err
		}
	}
}

// read returns the record in a file, if it is one and the ledger does not know
// it.
func (w *watcher) read(root *os.Root, name string) (follow.Record, bool) {
	base, isRecord := strings.CutSuffix(name, narinfoSuffix)
	part, err := nix.ParseHashPart(base)
	if !isRecord || err != nil {
		return follow.Record{}, false
	}
	stat, err := root.Stat(name)
	if err != nil {
		return follow.Record{Label: name, Err: err}, !errors.Is(err, fs.ErrNotExist)
	}
	sum := statSum(stat)
	if w.Ledger.Seen(part, sum) {
		return follow.Record{}, false
	}
	info, err := readRecord(root, part)
	if err != nil {
		return follow.Record{Label: name, Err: err}, !errors.Is(err, narstore.ErrNotFound)
	}
	return follow.Record{Info: pathInfo(info), Sum: sum}, true
}

// sumSeed makes checksums unguessable; they never leave the process.
var sumSeed = maphash.MakeSeed()

// statSum is a checksum of what tells one state of a file from another.
func statSum(stat fs.FileInfo) uint64 {
	b := binary.LittleEndian.AppendUint64(nil, uint64(stat.Size()))
	b = binary.LittleEndian.AppendUint64(b, uint64(stat.ModTime().UnixNano()))
	if sys, ok := stat.Sys().(*syscall.Stat_t); ok {
		b = binary.LittleEndian.AppendUint64(b, sys.Ino)
	}
	return maphash.Bytes(sumSeed, b)
}
