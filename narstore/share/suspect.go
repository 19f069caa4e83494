package share

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxSuspects bounds the paths that wait to be read; others are suspected again
	// when they are next opened.
	maxSuspects = 16
	// maxAcquitted bounds the paths that are remembered to be sound, for a store
	// whose files all have other times than Nix gives them.
	maxAcquitted = 1 << 14
)

// storeTime is what Nix sets the times of all files in a store to, as soon as they
// are complete (libstore/posix-fs-canonicalise.cc). A file with another one has been
// written to since, or comes from a backup.
var storeTime = time.Unix(1, 0)

// suspect is a path of which a file was written to at some time.
type suspect struct {
	info    *narstore.PathInfo
	written time.Time
}

// suspectWritten has a path read, behind the back of who opened it, if its files were
// written to since Nix made them: peers find out that bytes are wrong, but its owner
// would not.
func (c *Catalog) suspectWritten(nar narstore.NAR, info *narstore.PathInfo) {
	files, ok := nar.(interface{ Written() time.Time })
	if !ok || files.Written().IsZero() || files.Written().Equal(storeTime) {
		return
	}
	select {
	case c.suspects <- suspect{info, files.Written()}:
	default:
	}
}

// readSuspects reads them, one after the other, until ctx ends.
func (c *Catalog) readSuspects(ctx context.Context) error {
	acquitted := make(map[nix.HashPart]time.Time)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-c.suspects:
			part := s.info.Path.HashPart()
			if acquitted[part].Equal(s.written) {
				continue
			}
			err := c.read(ctx, s.info)
			c.markIfCorrupt(s.info, err)
			if err != nil {
				c.log.Debug("path with a file that was written to", zap.Stringer("storePath", s.info.Path), zap.Error(err))
				continue
			}
			if len(acquitted) >= maxAcquitted {
				clear(acquitted)
			}
			acquitted[part] = s.written
		}
	}
}

// read reads all of a path.
func (c *Catalog) read(ctx context.Context, info *narstore.PathInfo) error {
	nar, err := c.store.Open(ctx, info)
	if err != nil {
		return err
	}
	return errors.Join(verify(ctx, nar, info), nar.Close())
}
