package logging

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

// sent is what the journal got.
type sent struct {
	Message  string
	Priority journal.Priority
	Fields   map[string]string
}

func TestJournal(t *testing.T) {
	var got []sent
	send := func(message string, priority journal.Priority, fields map[string]string) error {
		got = append(got, sent{message, priority, fields})
		return nil
	}
	log, _, err := build(io.Discard, "info", Console, send)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not logged")
	log.Named("p2p").With(zap.Duration("atMost", time.Second)).
		Warn("a peer is slow", zap.String("storePath", "/nix/store/x"), zap.Int("HTTPStatus2xx", 7))
	want := []sent{{
		Message:  `WARN p2p a peer is slow {"atMost": "1s", "storePath": "/nix/store/x", "HTTPStatus2xx": 7}`,
		Priority: journal.PriWarning,
		Fields: map[string]string{
			"SYSLOG_IDENTIFIER": "nar-p2pd", "NAR_P2P_LOGGER": "p2p", "NAR_P2P_AT_MOST": "1s",
			"NAR_P2P_STORE_PATH": "/nix/store/x", "NAR_P2P_HTTPSTATUS2XX": "7",
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the journal got (-want +got):\n%s", diff)
	}
}

// TestJournalGone wants on standard error what the journal does not take.
func TestJournalGone(t *testing.T) {
	var stderr strings.Builder
	refuse := func(string, journal.Priority, map[string]string) error { return errors.New("gone") }
	log, _, err := build(&stderr, "info", Console, refuse)
	if err != nil {
		t.Fatal(err)
	}
	log.With(zap.Int("a", 1)).Info("hello")
	if got := stderr.String(); !strings.HasSuffix(got, "INFO hello {\"a\": 1}\n") {
		t.Errorf("standard error got %q", got)
	}
}
