package logging_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/logging"
)

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	log, _, err := logging.New(&b, "info", logging.JSON)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("hidden")
	log.Named("part").Info("shown", zap.Duration("took", 1500*time.Millisecond))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, b.String())
	}
	if got["msg"] != "shown" || got["logger"] != "part" || got["took"] != "1.5s" || got["level"] != "info" {
		t.Errorf("logged %v", got)
	}
}

func TestErrors(t *testing.T) {
	if _, _, err := logging.New(&bytes.Buffer{}, "loud", logging.JSON); err == nil {
		t.Error("level loud is accepted")
	}
	if _, _, err := logging.New(&bytes.Buffer{}, "info", "xml"); err == nil {
		t.Error("format xml is accepted")
	}
}

// TestCaptureLibp2p is one test, because libp2p keeps its first handler.
func TestCaptureLibp2p(t *testing.T) {
	var b bytes.Buffer
	dht := golog.Logger("dht/some-part") // as kad-dht does, before main
	log, _, err := logging.New(&b, "info", logging.Console)
	if err != nil {
		t.Fatal(err)
	}
	logging.CaptureLibp2p(log)
	libp2p := gologshim.Logger("some-system")
	libp2p.Info("not wanted")
	for range 50 {
		libp2p.Warn("wanted", "key", "value")
	}
	dht.Warn("no peers in the table")
	dht.Error("batch not committed or canceled")
	dht.Error("dht broken")
	got := b.String()
	if strings.Contains(got, "not wanted") {
		t.Errorf("an info message of libp2p was logged:\n%s", got)
	}
	if n := strings.Count(got, "wanted"); n != 1 {
		t.Errorf("of 50 equal warnings %d were logged, want 1:\n%s", n, got)
	}
	if strings.Contains(got, "no peers in the table") || strings.Contains(got, "batch not") {
		t.Errorf("a harmless message was logged:\n%s", got)
	}
	for _, part := range []string{"WARN", "some-system", `"key": "value"`, "ERROR dht/some-part dht broken"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in\n%s", part, got)
		}
	}
}

// TestCaptureDebug looks at go-log alone, as libp2p has its handler by now.
func TestCaptureDebug(t *testing.T) {
	var b bytes.Buffer
	log, _, err := logging.New(&b, "debug", logging.Console)
	if err != nil {
		t.Fatal(err)
	}
	loggers := map[string]*golog.ZapEventLogger{"dht/part": golog.Logger("dht/part"), "badger4": golog.Logger("badger4")}
	logging.CaptureLibp2p(log)
	for name, say := range loggers {
		say.Debug(name, " debug")
		say.Info(name, " info")
		say.Warn(name, " warning")
		say.Error(name, " error")
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, line := range lines {
		_, lines[i], _ = strings.Cut(line, " ")
	}
	slices.Sort(lines)
	want := []string{
		"DEBUG dht/part dht/part warning",
		"ERROR badger4 badger4 error",
		"ERROR dht/part dht/part error",
		"INFO dht/part dht/part info",
		"WARN badger4 badger4 warning",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("logged (-want +got):\n%s", diff)
	}
}
