package substituter

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// serveCacheInfo answers for /nix-cache-info. After a 404 here Nix would try a
// PUT and leave the cache alone for a week.
func (s *Server) serveCacheInfo(w http.ResponseWriter, r *http.Request) {
	text := fmt.Sprintf("StoreDir: %s\nWantMassQuery: 1\nPriority: %d\n", nix.StoreDir, s.Priority)
	writeText(w, r, "text/x-nix-cache-info", []byte(text))
}

// serveNarinfo answers 200 or 404, whatever happens.
func (s *Server) serveNarinfo(w http.ResponseWriter, r *http.Request, name string) {
	part, err := nix.ParseHashPart(strings.TrimSuffix(name, ".narinfo"))
	if err != nil {
		notFound(w)
		return
	}
	rec, err := s.lookup(r.Context(), part)
	switch {
	case errors.Is(err, narstore.ErrNotFound):
		s.counters.narinfos.add(resultAbsent)
		notFound(w)
		return
	case err != nil:
		s.counters.narinfos.add(resultFailed)
		s.log.Debug("narinfo not found in time", zap.Stringer("hashPart", part), zap.Error(err))
		notFound(w)
		return
	}
	s.counters.narinfos.add(resultFound)
	if s.peers != nil && r.Method == http.MethodGet {
		s.peers.Expect(rec.info.NARHash, s.mayTellStrangers(rec))
	}
	writeText(w, r, "text/x-nix-narinfo", rec.forNix().Bytes())
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
