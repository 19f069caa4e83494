package faults

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// matrixFile is where the matrix is written, or "".
var matrixFile = os.Getenv("TEST_RELIABILITY_TABLE")

// matrix is the document about the faults that are not upstreams'.
type matrix struct {
	versions []lab.Version

	mu       sync.Mutex
	findings map[string]map[string]finding // by fault and version
}

// finding is what came of a trial.
type finding struct {
	took time.Duration
	did  string
}

func newMatrix(versions []lab.Version) *matrix {
	return &matrix{versions: versions, findings: make(map[string]map[string]finding)}
}

func (f *fault) key() string { return f.area + "\n" + f.name }

func (m *matrix) add(f fault, v lab.Version, found finding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.findings[f.key()] == nil {
		m.findings[f.key()] = make(map[string]finding)
	}
	m.findings[f.key()][v.Name] = found
}

// document returns the whole matrix.
func (m *matrix) document() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	fmt.Fprintf(&b, `<!-- Written by "make faults" from what it did. -->
# What a node survives

Each cell is one run of a real daemon and a real Nix that substitutes into an empty store while something fails, and the
longest time that one `+"`nix-store --realise`"+` took. In each of them Nix ended well, within %.0f s, and what it has in its
store is what was signed (`+"`nix store verify`"+`); and the node worked again once the fault was over. Where a fault lasts,
`+"`p2pctl doctor`"+` named it. `+"`make test`"+` meets each of them with one version of Nix, and does not go on where one of these does
not hold.

What upstreams do wrong is in [nix-faults.md](nix-faults.md); what hostile peers, web pages and files may try is in the tests
of their packages.

The memory limit is %s here.
`, bound.Seconds(), lab.MemoryLimits())
	area := ""
	for _, f := range survived() {
		if f.area != area {
			area = f.area
			m.head(&b, area)
		}
		m.row(&b, &f)
	}
	return b.Bytes()
}

func (m *matrix) head(b *bytes.Buffer, area string) {
	fmt.Fprintf(b, "\n## %s\n\n| |", area)
	for _, v := range m.versions {
		fmt.Fprintf(b, " Nix %s |", v.Name)
	}
	fmt.Fprintf(b, " who gave the NARs, or what happened |\n| --- |%s\n", strings.Repeat(" --- |", len(m.versions)+1))
}

func (m *matrix) row(b *bytes.Buffer, f *fault) {
	fmt.Fprintf(b, "| %s |", f.name)
	var did []string
	for _, v := range m.versions {
		found, ran := m.findings[f.key()][v.Name]
		if !ran {
			fmt.Fprint(b, " not run |")
			continue
		}
		fmt.Fprintf(b, " %s |", rounded(found.took))
		if !slices.Contains(did, found.did) {
			did = append(did, found.did)
		}
	}
	fmt.Fprintf(b, " %s |\n", strings.Join(did, "; or "))
}
