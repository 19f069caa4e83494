package upstream

import (
	"context"
	"errors"
	"io"
	"time"
)

// A body must bring progressBytes in progressTime of waiting for it. 0.8 kB/s
// is slower than any line worth waiting for; another source, or Nix's next
// substituter, will do better.
const (
	progressBytes = 16 << 10
	progressTime  = 20 * time.Second
)

var errStalled = errors.New("no progress")

// progressReader ends a request whose body comes too slowly. Only the time
// inside Read counts: a reader that pauses is not the cache's fault.
type progressReader struct {
	r      io.Reader
	cancel context.CancelFunc
	waited time.Duration
	got    int
}

func (p *progressReader) Read(b []byte) (int, error) {
	timer := time.AfterFunc(progressTime-p.waited, p.cancel)
	begin := time.Now()
	n, err := p.r.Read(b)
	if !timer.Stop() && err != nil && !errors.Is(err, io.EOF) {
		return n, errStalled
	}
	p.waited += time.Since(begin)
	if p.got += n; p.got >= progressBytes {
		p.got, p.waited = 0, 0
	}
	return n, err
}
