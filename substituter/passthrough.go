package substituter

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/health"
)

const (
	maxLog         = 256 << 20 // bytes
	maxListing     = 64 << 20  // bytes
	maxRealisation = 1 << 20   // bytes
)

// realisation is "<hash of the derivation>!<output>.doi" (libstore,
// binary-cache-store.cc).
var realisation = regexp.MustCompile(`^realisations/sha256:(?:[0-9a-f]{64}|[0-9a-df-np-sv-z]{52})![0-9A-Za-z+\-_?=][0-9A-Za-z+\-._?=]{0,210}\.doi$`)

// passable returns the largest size in bytes of a file that is passed through
// from the upstreams, or 0 if there is no such kind of file. Nothing here is
// verified, and peers are never asked for it.
func passable(name string) int64 {
	if drv, ok := strings.CutPrefix(name, "log/"); ok {
		if path, err := nix.ParseBaseName(drv); err == nil && path.IsDerivation() {
			return maxLog
		}
		return 0
	}
	if part, ok := strings.CutSuffix(name, ".ls"); ok {
		if _, err := nix.ParseHashPart(part); err == nil {
			return maxListing
		}
		return 0
	}
	if realisation.MatchString(name) {
		return maxRealisation
	}
	return 0
}

// passThrough serves build logs, listings and realisations from the first
// upstream that has them, and 404 for everything else.
func (s *Server) passThrough(w http.ResponseWriter, r *http.Request, name string) {
	limit := passable(name)
	if limit == 0 {
		notFound(w)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	body := s.firstFile(ctx, cancel, name, limit)
	if body == nil {
		notFound(w)
		return
	}
	defer body.Close()
	contentType := "text/plain; charset=utf-8"
	if !strings.HasPrefix(name, "log/") {
		contentType = "application/json"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(&timedWriter{w: w}, body); err != nil {
		s.log.Debug("passing through ended early", zap.String("name", name), zap.Error(err))
		panic(http.ErrAbortHandler)
	}
}

// firstFile asks the upstreams one after the other, all within the deadline.
// The body that it returns ends with ctx, and not with the deadline.
func (s *Server) firstFile(ctx context.Context, cancel context.CancelFunc, name string, limit int64) io.ReadCloser {
	timer := time.AfterFunc(s.setup().Deadline, cancel)
	for _, m := range s.ranking() {
		if m.admit() == health.Refused {
			s.traffic.add(m.mirror, askedFile, resultSkipped)
			continue
		}
		body, err := m.file(ctx, name, limit)
		if err != nil {
			s.log.Debug("not passed through", zap.String("name", name), zap.Error(err))
			continue
		}
		if !timer.Stop() {
			_ = body.Close() // the deadline came first
			return nil
		}
		return body
	}
	timer.Stop()
	return nil
}

// timedWriter gives every piece its own deadline.
type timedWriter struct{ w http.ResponseWriter }

func (t *timedWriter) Write(p []byte) (int, error) {
	// Not every ResponseWriter has deadlines; that of net/http has.
	_ = http.NewResponseController(t.w).SetWriteDeadline(time.Now().Add(writeTimeout))
	return t.w.Write(p)
}
