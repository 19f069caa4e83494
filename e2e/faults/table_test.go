package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// tableFile is where the table is written, or "".
var tableFile = os.Getenv("TEST_NIX_FAULTS_TABLE")

// lookOn is how long Nix is watched without a daemon. Nobody waits longer for
// a download to begin.
const lookOn = time.Minute

// table is the document about the outcomes.
type table struct {
	versions []lab.Version

	mu       sync.Mutex
	outcomes map[experiment]outcome
}

func newTable(versions []lab.Version) *table {
	return &table{versions: versions, outcomes: make(map[experiment]outcome)}
}

func (tb *table) add(x experiment, o outcome) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.outcomes[x] = o
}

// checkFailed checks that most upstreams have failed indeed. A single one may
// not have been needed, since a second one was quicker.
func (tb *table) checkFailed(t *testing.T) {
	t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	ran, failed := make(map[string]int), make(map[string]int)
	for x, o := range tb.outcomes {
		kind := fmt.Sprintf("%s of an upstream beside a %s", x.scope, x.help)
		ran[kind]++
		if o.failed {
			failed[kind]++
		}
	}
	for kind, n := range ran {
		if failed[kind] <= n/2 {
			t.Errorf("%s: only %d of %d have failed: the test shows nothing", kind, failed[kind], n)
		}
	}
}

// sections are the parts of the document.
func sections() []section {
	return []section{
		{noDaemon, "Without nar-p2p", "`substituters` lists the failing cache and then a healthy one. `fallback` is off, as by default."},
		{secondUpstream, "nar-p2p has a second upstream", "`substituters` lists the daemon alone. It has two upstreams: the failing one, and then a healthy one."},
		{secondSubstituter, "nar-p2p has nothing else, Nix has a second substituter", "The daemon's only upstream fails. `substituters` lists the daemon and then a healthy cache."},
		{peer, "A peer holds the closure", "The daemon's only upstream fails, and `substituters` lists the daemon alone. A peer, found through the DHT, holds everything."},
	}
}

type section struct {
	help        help
	title, text string
}

// document returns the whole table.
func (tb *table) document() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<!-- Written by "make nix-faults" from what it measured. -->
# What Nix does while upstreams fail

Each cell is one run of `+"`nix-store --realise`"+`, which substitutes a closure of %d paths into an empty store, and the time
that it took. What fails is *everything* that the upstream sends; everything from *midway* on, after its first %d answers;
its *narinfos* alone; or its *NARs* alone. In the second and the last case one NAR has %d MiB, so that Nix has a part of it
when it breaks off. The last column says who gave the NARs. All settings have their defaults, but for Nix's
`+"`connect-timeout = 5`"+`.

In every run with nar-p2p the build went on, and Nix got no other answers to its questions for narinfos than 200 and 404,
to none of them after more than a few seconds, and asked for none twice. `+"`make test`"+` checks that.
`, paths, midwayAfter, largeSize>>20)
	for _, s := range sections() {
		tb.writeSection(&b, s)
	}
	return b.Bytes()
}

func (tb *table) writeSection(b *bytes.Buffer, s section) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| the upstream | what fails |", s.title, s.text)
	for _, v := range tb.versions {
		fmt.Fprintf(b, " Nix %s |", v.Name)
	}
	fmt.Fprintf(b, " NARs from |\n| --- | --- |%s\n", strings.Repeat(" --- |", len(tb.versions)+1))
	for _, row := range experiments(tb.versions, 0) {
		if row.help != s.help {
			continue
		}
		fmt.Fprintf(b, "| %s | %s |", row.fault, row.what())
		givers := make(map[string]bool)
		for _, v := range tb.versions {
			row.version = v
			o, ran := tb.outcomes[row]
			if !ran {
				fmt.Fprint(b, " not run |")
				continue
			}
			fmt.Fprintf(b, " %s |", o)
			maps.Copy(givers, o.givers(row.help))
		}
		fmt.Fprintf(b, " %s |\n", strings.Join(slices.Sorted(maps.Keys(givers)), ", "))
	}
}

// what says what fails.
func (x experiment) what() string {
	if x.onlyLarge() {
		return string(x.scope) + " (only the large one is wanted)"
	}
	return string(x.scope)
}

// String is what a cell of the table says.
func (o outcome) String() string {
	switch {
	case errors.Is(o.err, context.DeadlineExceeded):
		return fmt.Sprintf("no end within %.0f s", o.took.Seconds())
	case o.err != nil:
		return "fails after " + rounded(o.took)
	}
	return rounded(o.took)
}

// rounded is to whole seconds: the rest is the machine's.
func rounded(d time.Duration) string {
	if d < time.Second {
		return "under 1 s"
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func (o outcome) givers(h help) map[string]bool {
	names := make(map[string]bool)
	if o.faulty {
		names["failing upstream"] = true
	}
	if o.healthy && h == secondUpstream {
		names["second upstream"] = true
	}
	if o.healthy && h != secondUpstream {
		names["second substituter"] = true
	}
	if o.peer {
		names["peer"] = true
	}
	return names
}
