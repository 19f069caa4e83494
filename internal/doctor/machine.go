package doctor

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

func (x *examination) machine(ctx context.Context) []Check {
	if !x.up {
		return nil
	}
	return []Check{x.clock(ctx), x.disk(), x.state(), x.files(ctx)}
}

// maxSkew is how wrong the clock may be: TLS and the expiry of DHT records bear
// minutes.
const maxSkew = 2 * time.Minute

// clock compares the daemon's with that of the first upstream that answers.
func (x *examination) clock(ctx context.Context) Check {
	const name = "clock"
	for _, u := range x.status.Upstreams {
		if u.Private || !u.Reachable {
			continue
		}
		theirs, err := x.date(ctx, cacheInfo(u.URL))
		if err != nil {
			continue
		}
		ours, err := x.date(ctx, cacheInfo(x.status.Substituter))
		if err != nil {
			ours = time.Now()
		}
		skew := ours.Sub(theirs).Round(time.Second)
		if skew.Abs() > maxSkew {
			return warning(name, "set it, e.g. with timedatectl set-ntp true", "differs by %v from that of %s", skew.Abs(), u.URL)
		}
		return ok(name, "agrees with that of %s", u.URL)
	}
	return skipped(name, "no upstream tells the time")
}

// cacheInfo is the file that every cache has.
func cacheInfo(cache string) string { return strings.TrimRight(cache, "/") + "/nix-cache-info" }

// date returns the time that a server tells, whatever else it says.
func (x *examination) date(ctx context.Context, address string) (time.Time, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return time.Time{}, err
	}
	response, err := x.patient.HTTP.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	date, err := http.ParseTime(response.Header.Get("Date"))
	return date, errors.Join(err, response.Body.Close())
}

// What the state directory should have left, in bytes: below the first it soon
// fills up, below the second the database may not start.
const (
	lowDisk   = 1 << 30
	emptyDisk = 100 << 20
)

func (x *examination) disk() Check {
	const name = "disk"
	var fs unix.Statfs_t
	if err := unix.Statfs(x.status.StateDir, &fs); err != nil {
		return skipped(name, "%s: %v", x.status.StateDir, err)
	}
	left := int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // The types differ between systems.
	const remedy = "make room, or move state_dir"
	switch text := explain.Size(left); {
	case left < emptyDisk:
		return failed(name, remedy, "%s has %s left", x.status.StateDir, text)
	case left < lowDisk:
		return warning(name, remedy, "%s has %s left", x.status.StateDir, text)
	default:
		return ok(name, "%s has %s left", x.status.StateDir, text)
	}
}

// state tells whether what the node learns is kept.
func (x *examination) state() Check {
	const name = "state"
	switch s := x.status; {
	case s.StateProblem != "":
		return warning(name, "do what it takes: until then all is looked up again after each start", "nothing is kept: %s", s.StateProblem)
	case s.StateSetAside != "":
		return warning(name, "see whether the disk is sound, e.g. with smartctl, and remove that folder",
			"the database was damaged, and a new one was begun; the old one is %s", s.StateSetAside)
	default:
		return ok(name, "what is learned is kept")
	}
}

// fewFiles is how many open files are too few: connections to peers take most.
const fewFiles = 4096

func (x *examination) files(ctx context.Context) Check {
	const name, remedy = "open-files", "raise the limit: LimitNOFILE= in the unit, or ulimit -n"
	metrics, err := x.patient.Node.Metrics(ctx)
	limit, known := metrics["process_max_fds"]
	open := metrics["process_open_fds"]
	switch {
	case err != nil || !known:
		return skipped(name, "the daemon does not tell")
	case open > limit*0.8:
		return warning(name, remedy, "%.0f of %.0f are used", open, limit)
	case limit < fewFiles:
		return warning(name, remedy, "at most %.0f, which peers may use up", limit)
	default:
		return ok(name, "%.0f of %.0f", open, limit)
	}
}
