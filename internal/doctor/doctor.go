// Package doctor looks at a node from the side of whoever uses it: does Nix get
// what nar-p2p promises, and if not, what is to be done?
package doctor

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/control"
)

// Verdict is how a check has come out.
type Verdict string

// The verdicts, from good to bad.
const (
	OK Verdict = "ok"
	// Skipped says that there was nothing to look at.
	Skipped Verdict = "skipped"
	// Warning is for what makes the node less useful than it could be.
	Warning Verdict = "warning"
	// Failed is for what keeps Nix from using the node.
	Failed Verdict = "failed"
)

// Check is what was found about one thing.
type Check struct {
	// Name is one of a fixed set, for programs.
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Finding string  `json:"finding"`
	// Remedy says what to do, where something is.
	Remedy string `json:"remedy,omitempty"`
}

// Node is the daemon as its user sees it.
type Node interface {
	Status(ctx context.Context) (control.Status, error)
	Config(ctx context.Context) (control.Config, error)
	Peers(ctx context.Context) ([]control.Peer, error)
	Metrics(ctx context.Context) (map[string]float64, error)
}

// Patient is whom to look at.
type Patient struct {
	Node Node
	// Nix returns Nix's settings; see NixSettings.
	Nix func(context.Context) (*NixConfig, error)
	// HTTP asks the substituter as Nix does, and upstreams for the time.
	HTTP *http.Client
	// Path is the hash part of the path for the self test; where it is "" the node
	// names one.
	Path string
}

const (
	// checkTimeout bounds each group of checks but the self test.
	checkTimeout = 20 * time.Second
	// selfTestTimeout is enough for a path of some hundred megabytes.
	selfTestTimeout = 5 * time.Minute
)

// Examine makes all checks, in an order in which what comes first explains what
// comes later, and yields each as it is done. Without a daemon most are left out.
func (p Patient) Examine(ctx context.Context) iter.Seq[Check] {
	return func(yield func(Check) bool) {
		x := examination{patient: p}
		for _, look := range []struct {
			at     func(context.Context) []Check
			within time.Duration
		}{
			{x.daemon, checkTimeout},
			{x.nix, checkTimeout},
			{x.store, checkTimeout},
			{x.upstreams, checkTimeout},
			{x.network, checkTimeout},
			{x.machine, checkTimeout},
			{x.selfTest, selfTestTimeout},
		} {
			looking, cancel := context.WithTimeout(ctx, look.within)
			checks := look.at(looking)
			cancel()
			for _, c := range checks {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// examination has what the checks learn of the node. Where up is false it does
// not answer.
type examination struct {
	patient Patient
	up      bool
	status  control.Status
	config  control.Config
}

func (x *examination) daemon(ctx context.Context) []Check {
	const name = "daemon"
	var err error
	if x.status, err = x.patient.Node.Status(ctx); err == nil {
		x.config, err = x.patient.Node.Config(ctx)
	}
	if err != nil {
		return []Check{failed(name, "start nar-p2pd, or name its socket with --socket or $NAR_P2P_SOCKET", "%v", err)}
	}
	x.up = true
	return []Check{ok(name, "%s runs, up %v, profile %s, network %s", x.status.Version,
		time.Since(x.status.Started).Round(time.Second), x.status.Profile, x.status.Network)}
}

// values returns those of a key of the daemon's configuration.
func (x *examination) values(key string) []string {
	for _, s := range x.config.Settings {
		if s.Key == key {
			return s.Values
		}
	}
	return nil
}
