package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// NixConfig is what of Nix's settings matters to a substituter.
type NixConfig struct {
	Substituters []string
	TrustedKeys  []string
	Fallback     bool
	// ConnectTimeout is 0 for none.
	ConnectTimeout time.Duration
	Substitute     bool
}

// errNoNix says that the program nix is not there.
var errNoNix = errors.New("there is no program nix")

// NixSettings asks the program nix for the settings that this user's commands run
// with. Where a Nix daemon does the work its own settings count, and the user's
// only where Nix trusts the user.
func NixSettings(ctx context.Context) (*NixConfig, error) {
	if _, err := exec.LookPath("nix"); err != nil {
		return nil, errNoNix
	}
	// "nix config show" is what came after 2.19.
	var errs []error
	for _, command := range [][]string{{"config", "show"}, {"show-config"}} {
		args := append([]string{"--extra-experimental-features", "nix-command"}, command...)
		text, err := exec.CommandContext(ctx, "nix", append(args, "--json")...).Output()
		if err == nil {
			return parseNixConfig(text)
		}
		errs = append(errs, fmt.Errorf("nix %s: %w", strings.Join(command, " "), err))
	}
	return nil, errors.Join(errs...)
}

func parseNixConfig(text []byte) (*NixConfig, error) {
	var all struct {
		Substituters struct{ Value []string } `json:"substituters"`
		Keys         struct{ Value []string } `json:"trusted-public-keys"`
		Fallback     struct{ Value bool }     `json:"fallback"`
		Timeout      struct{ Value int64 }    `json:"connect-timeout"`
		Substitute   struct{ Value bool }     `json:"substitute"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("settings of Nix: %w", err)
	}
	return &NixConfig{
		Substituters: all.Substituters.Value, TrustedKeys: all.Keys.Value, Fallback: all.Fallback.Value,
		ConnectTimeout: time.Duration(all.Timeout.Value) * time.Second, Substitute: all.Substitute.Value,
	}, nil
}

// maxConnectTimeout is how long Nix may usefully wait for a substituter that does
// not answer at all.
const maxConnectTimeout = 15 * time.Second

func (x *examination) nix(ctx context.Context) []Check {
	cfg, err := x.patient.Nix(ctx)
	switch {
	case errors.Is(err, errNoNix):
		return []Check{skipped("nix", "%v here", err)}
	case err != nil:
		return []Check{warning("nix", "see whether nix show-config works", "its settings cannot be read: %v", err)}
	}
	checks := []Check{fallbackCheck(cfg), timeoutCheck(cfg)}
	if x.up {
		checks = append(x.substituterChecks(cfg), append(checks, x.keysCheck(cfg))...)
	}
	return checks
}

// substituterChecks want the node to be asked, and somebody behind it.
func (x *examination) substituterChecks(cfg *NixConfig) []Check {
	const name, order = "nix-substituter", "nix-order"
	at := slices.IndexFunc(cfg.Substituters, func(s string) bool { return sameServer(s, x.status.Substituter) })
	remedy := fmt.Sprintf("in nix.conf: substituters = %s https://cache.nixos.org (and restart nix-daemon, if there is one)", x.status.Substituter)
	switch {
	case !cfg.Substitute:
		return []Check{failed(name, "connect this machine, or in nix.conf: substitute = true",
			"Nix substitutes nothing: substitute is false, as it is by itself where no network interface is up")}
	case at < 0:
		return []Check{failed(name, remedy, "%s is none of Nix's substituters", x.status.Substituter)}
	}
	checks := []Check{ok(name, "Nix asks %s", x.status.Substituter)}
	switch {
	case len(cfg.Substituters) == 1:
		checks = append(checks, warning(order, remedy, "there is no substituter for when nar-p2pd is down"))
	case at > 0:
		checks = append(checks, warning(order, remedy,
			"%s stands before nar-p2pd; where both have the same priority it is asked first", withoutPassword(cfg.Substituters[0])))
	default:
		checks = append(checks, ok(order, "nar-p2pd stands before %s", withoutPassword(cfg.Substituters[1])))
	}
	return checks
}

func withoutPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "another"
	}
	return u.Redacted()
}

// sameServer compares URLs of substituters, which may have a query of Nix's own.
// All names of this machine are the same.
func sameServer(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && x.Scheme == y.Scheme && x.Port() == y.Port() &&
		(x.Hostname() == y.Hostname() || isLocal(x.Hostname()) && isLocal(y.Hostname())) &&
		strings.Trim(x.Path, "/") == strings.Trim(y.Path, "/")
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}

func fallbackCheck(cfg *NixConfig) Check {
	const name = "nix-fallback"
	if !cfg.Fallback {
		return warning(name, "in nix.conf: fallback = true", "a substituter that fails in the middle fails the build: fallback is false")
	}
	return ok(name, "what cannot be substituted is built")
}

func timeoutCheck(cfg *NixConfig) Check {
	const name, remedy = "nix-connect-timeout", "in nix.conf: connect-timeout = 5"
	switch {
	case cfg.ConnectTimeout == 0:
		return warning(name, remedy, "Nix waits for minutes for a substituter that does not answer: connect-timeout is not set")
	case cfg.ConnectTimeout > maxConnectTimeout:
		return warning(name, remedy, "Nix waits %v for a substituter that does not answer", cfg.ConnectTimeout)
	default:
		return ok(name, "%v", cfg.ConnectTimeout)
	}
}

// keysCheck wants Nix to accept what the node believes: it would refuse
// everything else after it was fetched.
func (x *examination) keysCheck(cfg *NixConfig) Check {
	const name = "nix-keys"
	var missing []string
	for _, key := range x.values("trust.public_keys") {
		if !slices.Contains(cfg.TrustedKeys, key) {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		return failed(name, "in nix.conf: extra-trusted-public-keys = "+strings.Join(missing, " "),
			"Nix does not trust %d of the keys that nar-p2pd trusts, and refuses what they have signed", len(missing))
	}
	return ok(name, "Nix trusts what nar-p2pd trusts")
}
