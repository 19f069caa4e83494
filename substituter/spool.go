package substituter

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sync/semaphore"

	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

var errSpoolFull = errors.New("no room left")

// spool keeps bytes in temporary files until they are verified.
type spool struct {
	dir  string
	room *semaphore.Weighted // bytes
}

func newSpool(dir string, size int64) *spool {
	return &spool{dir: dir, room: semaphore.NewWeighted(size)}
}

// fill reads the rest of a NAR, whose beginning is in the digest, and returns
// it once the whole has matched; or what there is of it once that has earned to
// be used before.
func (s *spool) fill(r io.Reader, digest *verify.Digest, earned func() bool) (io.ReadCloser, error) {
	size := digest.Target().Size - digest.Offset()
	if !s.room.TryAcquire(size) {
		return nil, errSpoolFull
	}
	file := &spoolFile{release: func() { s.room.Release(size) }}
	if err := file.fill(s.dir, io.LimitReader(r, size), digest, earned); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// createUnlinked makes a file that is gone with its descriptor.
func createUnlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "nar-p2p-spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// spoolFile is an unlinked file: it is gone with its descriptor, even after a
// crash.
type spoolFile struct {
	*os.File
	release func()
}

func (f *spoolFile) fill(dir string, r io.Reader, digest *verify.Digest, earned func() bool) (err error) {
	if f.File, err = createUnlinked(dir); err != nil {
		return err
	}
	piece, both := make([]byte, pieceSize), io.MultiWriter(f.File, digest)
	for ended := false; !ended && !earned(); {
		n, err := r.Read(piece)
		if _, err := both.Write(piece[:n]); err != nil {
			return err
		}
		if ended = errors.Is(err, io.EOF); err != nil && !ended {
			return err
		}
		if ended && digest.Offset() < digest.Target().Size {
			return io.ErrUnexpectedEOF
		}
	}
	if digest.Offset() == digest.Target().Size && !digest.Matches() {
		return verify.ErrMismatch
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// Close gives the room back.
func (f *spoolFile) Close() error {
	defer f.release()
	if f.File == nil {
		return nil
	}
	return f.File.Close()
}
