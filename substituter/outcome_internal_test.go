package substituter

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

type noBucket struct{}

func (noBucket) Get([]byte) ([]byte, error)              { return nil, errors.New("no value") }
func (noBucket) Put([]byte, []byte, time.Duration) error { return nil }
func (noBucket) Delete([]byte) error                     { return nil }

func (noBucket) Each(context.Context, func(key, value []byte) error) error { return nil }

// A search can say of every upstream what it said.
func TestOutcome(t *testing.T) {
	const text = "00bgd045z0d4icpbc2yyz4gx48ak44la"
	part, err := nix.ParseHashPart(text)
	if err != nil {
		t.Fatal(err)
	}
	record, err := cachetest.FS.ReadFile("narinfo/" + text + ".narinfo")
	if err != nil {
		t.Fatal(err)
	}
	key, err := narinfo.ParsePublicKey(cachetest.Key)
	if err != nil {
		t.Fatal(err)
	}
	handlers := []http.HandlerFunc{
		http.NotFound,
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(record) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(record) },
		http.NotFound,
	}
	for _, tt := range []struct {
		name     string
		trusted  []narinfo.PublicKey
		standing []standing
		state    certainty
	}{
		{"trusted", []narinfo.PublicKey{key}, []standing{absentThere, unreachable, refused, filtered, found, waiting}, present},
		{"not trusted", nil, []standing{absentThere, unreachable, refused, filtered, answered, absentThere}, unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Trust: trust.Keys{Trusted: tt.trusted}}
			for i, h := range handlers {
				server := httptest.NewServer(h)
				defer server.Close()
				up := upstream.Config{URL: server.URL, Priority: i, Private: i == 2}
				if i == 3 {
					up.Exclude = []string{"*"}
				}
				cfg.Upstreams = append(cfg.Upstreams, up)
			}
			s, err := New(cfg, Deps{Log: zap.NewNop(), Records: noBucket{}})
			if err != nil {
				t.Fatal(err)
			}
			o := s.explore(t.Context(), part, everybody)
			if o.state != tt.state || (o.found != nil) != (tt.state == present) || len(o.answers) != len(handlers) {
				t.Fatalf("%+v", o)
			}
			for i, a := range o.answers {
				want := tt.standing[i]
				asked := want != waiting
				if a.upstream != cfg.Upstreams[i].URL || a.standing != want || a.private != (i == 2) ||
					a.asked.IsZero() == asked || (a.took > 0) != asked || (a.err != nil) == (want == found || want == answered || want == waiting) {
					t.Errorf("%d: %+v, want %v", i, a, want)
				}
			}
			if r := o.found; r != nil && (r.took != o.answers[4].took || r.upstream != cfg.Upstreams[4].URL) {
				t.Errorf("record from %s in %v", r.upstream, r.took)
			}
			for _, m := range s.setup().upstreams {
				m.CloseIdleConnections()
			}
		})
	}
}
