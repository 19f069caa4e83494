package substituter

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/tracing"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// serveCacheInfo answers for /nix-cache-info. After a 404 here Nix would try a
// PUT and leave the cache alone for a week.
func (s *Server) serveCacheInfo(w http.ResponseWriter, r *http.Request) {
	text := fmt.Sprintf("StoreDir: %s\nWantMassQuery: 1\nPriority: %d\n", nix.StoreDir, s.setup().Priority)
	writeText(w, r, "text/x-nix-cache-info", []byte(text))
}

// actAgain is how long what a record that Nix was given brings about is not
// done anew. Peers have changed by then, or the records that were looked up
// ahead have gone.
const actAgain = 5 * time.Second

// serveNarinfo answers 200 or 404, whatever happens. Where the record is in
// memory it does next to nothing else.
func (s *Server) serveNarinfo(w http.ResponseWriter, r *http.Request, name string) {
	part, err := nix.ParseHashPart(strings.TrimSuffix(name, ".narinfo"))
	if err != nil {
		notFound(w)
		return
	}
	ctx, span := s.traced(r, "narinfo")
	defer span.End(nil)
	rec := s.records.memory.get(part)
	if rec == nil {
		rec, err = s.ahead.ask(ctx, part)
	}
	if err != nil {
		result := resultAbsent
		if !errors.Is(err, narstore.ErrNotFound) {
			result = resultUnknown
			s.log.Debug("not known whether there is a narinfo", zap.Stringer("hashPart", part), tracing.ID(ctx), zap.Error(err))
		}
		s.counters.narinfos.add(result)
		came(span, result, http.StatusNotFound)
		s.asked("narinfo", part, nil, result)
		notFound(w)
		return
	}
	s.counters.narinfos.add(resultFound)
	came(span, resultFound, http.StatusOK)
	s.asked("narinfo", part, rec.record, resultFound)
	s.given(rec, r.Method)
	rec.write(w, r.Method)
}

// given acts upon a record that Nix was given.
func (s *Server) given(r *rendered, method string) {
	now := int64(time.Since(s.started)) + 1
	last := r.given.Load()
	if last != 0 && now-last < int64(actAgain) {
		return
	}
	// HEAD asks whether there is a path, and not for it.
	if method == http.MethodGet {
		if !r.given.CompareAndSwap(last, now) {
			return // another request does it
		}
		if s.peers != nil {
			s.expect(r.record)
		}
	}
	if r.stale() {
		s.queueRefresh(r.info.StorePath.HashPart())
	}
	s.ahead.given(r, method)
}

// narinfoType is a header's value.
var narinfoType = []string{"text/x-nix-narinfo"}

// write answers with the record. The header's values are set as they are: Set
// would make a copy of each.
func (r *rendered) write(w http.ResponseWriter, method string) {
	h := w.Header()
	h["Content-Type"], h["Content-Length"] = narinfoType, r.contentLength
	if method != http.MethodHead {
		_, _ = (&timedWriter{w: w}).Write(r.text) // a client that has gone is no concern of ours
	}
}

func writeText(w http.ResponseWriter, r *http.Request, contentType string, text []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if r.Method != http.MethodHead {
		_, _ = (&timedWriter{w: w}).Write(text) // a client that has gone is no concern of ours
	}
}

// notFound answers 404, after which Nix asks its next substituter at once.
func notFound(w http.ResponseWriter) { http.Error(w, "not found", http.StatusNotFound) }
