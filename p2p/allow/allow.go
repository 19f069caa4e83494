// Package allow keeps the list of one's own people's peers. Part of it may be
// a file, which is read again when it changes.
//
// The file has one peer ID to a line. Blanks around it do not count, nor do
// empty lines, nor what follows a "#".
package allow

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/zap"
)

// interval is how often the file is looked at, which costs one stat. What has
// changed is read once it has been at rest for as long: an editor may be in the
// middle of writing it. Inotify would not do, because on NixOS the file is a
// symbolic link that is replaced, in a directory that is replaced.
const interval = 2 * time.Second

// List is a list of peers. Its methods are safe for concurrent use.
type List struct {
	path  string
	fixed []peer.ID
	log   *zap.Logger
	// opened is the file as Open has found it.
	opened look
	peers  atomic.Pointer[map[peer.ID]struct{}]
}

// Open returns the list of the fixed peers and those in the file at path, which
// must be there. An empty path stands for no file.
func Open(path string, fixed []peer.ID, log *zap.Logger) (*List, error) {
	l := &List{path: path, fixed: fixed, log: log.Named("allow")}
	if path != "" {
		l.opened = lookAt(path)
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	return l, nil
}

// Exists reports whether there is a list. One with nobody on it is a list too.
func (l *List) Exists() bool { return l.path != "" || len(l.fixed) > 0 }

// Has reports whether a peer is on the list.
func (l *List) Has(p peer.ID) bool {
	_, ok := (*l.peers.Load())[p]
	return ok
}

// Len is the number of peers on the list.
func (l *List) Len() int { return len(*l.peers.Load()) }

// load puts the list together.
func (l *List) load() error {
	var listed []peer.ID
	if l.path != "" {
		var err error
		if listed, err = read(l.path); err != nil {
			return fmt.Errorf("allow-list: %w", err)
		}
	}
	peers := make(map[peer.ID]struct{}, len(l.fixed)+len(listed))
	for _, ids := range [][]peer.ID{l.fixed, listed} {
		for _, p := range ids {
			peers[p] = struct{}{}
		}
	}
	l.peers.Store(&peers)
	return nil
}

// Run follows the file until ctx ends and calls changed after each change of
// the list. While the file is missing or malformed the list stays as it was.
func (l *List) Run(ctx context.Context, changed func()) error {
	if l.path == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	// last is the file one interval ago, taken that which was last read.
	last, taken := l.opened, l.opened
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := lookAt(l.path)
		rests := now.same(last)
		last = now
		if !rests || now.same(taken) {
			continue
		}
		taken = now
		if err := l.load(); err != nil {
			l.log.Error("the former allow-list stays in force", zap.Int("peers", l.Len()), zap.Error(err))
			continue
		}
		l.log.Info("allow-list read", zap.String("file", l.path), zap.Int("peers", l.Len()))
		changed()
	}
}

// look is what can be seen of a file from outside: nothing where it is missing.
type look struct{ os.FileInfo }

func lookAt(path string) look {
	info, err := os.Stat(path)
	if err != nil {
		return look{}
	}
	return look{info}
}

func (a look) same(b look) bool {
	if a.FileInfo == nil || b.FileInfo == nil {
		return a.FileInfo == b.FileInfo
	}
	return os.SameFile(a.FileInfo, b.FileInfo) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
