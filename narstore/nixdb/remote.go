package nixdb

import (
	"context"
	"errors"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb/daemon"
)

const (
	// remotePage is how many paths one page asks the daemon about: about 15 ms.
	remotePage = 256
	// remotePollFactor makes the poll half a minute: a list of 100,000 names
	// is 9 MB, which the daemon reads, sorts and sends each time.
	remotePollFactor = 30
)

// remote asks the nix-daemon, over one connection for everything.
type remote struct {
	mu    sync.Mutex
	conn  *daemon.Conn
	polls int64
}

// openRemote connects, and has the daemon open its database.
func openRemote(ctx context.Context, socket string) (*remote, error) {
	conn, err := daemon.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	if _, err := conn.PathFromHashPart(ctx, nix.HashPart{}); err != nil && !errors.Is(err, narstore.ErrNotFound) {
		return nil, errors.Join(err, conn.Close())
	}
	return &remote{conn: conn}, nil
}

func (r *remote) String() string { return "nix-daemon" }

// mark is always new, since only a listing would tell.
func (r *remote) mark(context.Context) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.polls++
	return r.polls, nil
}

func (r *remote) info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, err := r.conn.PathFromHashPart(ctx, part)
	if err != nil {
		return nil, err
	}
	results, err := r.conn.PathInfos(ctx, []nix.StorePath{path})
	if err != nil {
		return nil, err
	}
	if err := results[0].Err; err != nil && !errors.Is(err, narstore.ErrNotFound) {
		return nil, &malformedError{label: path.String(), err: err}
	}
	return results[0].Info, results[0].Err
}

// begin lists all names in any case, so every listing is complete.
func (r *remote) begin(full bool, _ int64) *cursor { return &cursor{full: full, complete: true} }

func (r *remote) page(ctx context.Context, c *cursor, ledger *follow.Ledger) (follow.Page, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.named {
		return r.firstPage(ctx, c)
	}
	wanted, rest := c.names, []nix.StorePath(nil)
	if c.full {
		rest = wanted[min(remotePage, len(wanted)):]
		wanted = wanted[:len(wanted)-len(rest)]
	} else {
		wanted, rest = unknown(wanted, ledger)
	}
	results, err := r.conn.PathInfos(ctx, wanted)
	if err != nil {
		return follow.Page{}, err
	}
	p := follow.Page{End: len(rest) == 0}
	for i, res := range results {
		switch {
		case errors.Is(res.Err, narstore.ErrNotFound): // removed since it was named
		case res.Err != nil:
			p.Records = append(p.Records, follow.Record{Label: wanted[i].String(), Err: res.Err})
		case !ledger.Seen(wanted[i].HashPart(), infoSum(res.Info)):
			p.Records = append(p.Records, follow.Record{Info: res.Info, Sum: infoSum(res.Info)})
		}
	}
	c.names = rest
	return p, nil
}

// firstPage asks for the names.
func (r *remote) firstPage(ctx context.Context, c *cursor) (follow.Page, error) {
	names, malformed, err := r.conn.AllValidPaths(ctx)
	if err != nil {
		return follow.Page{}, err
	}
	c.named, c.names = true, names
	var p follow.Page
	for _, text := range malformed {
		_, err := nix.ParseStorePath(text)
		p.Records = append(p.Records, follow.Record{Label: text, Err: err})
	}
	return p, nil
}

// unknown takes the next page of names that have not been told of.
func unknown(names []nix.StorePath, ledger *follow.Ledger) (wanted, rest []nix.StorePath) {
	for i, name := range names {
		if len(wanted) == remotePage {
			return wanted, names[i:]
		}
		if !ledger.Keep(name.HashPart()) {
			wanted = append(wanted, name)
		}
	}
	return wanted, nil
}

// infoSum is a checksum of the whole record.
func infoSum(info *narstore.PathInfo) uint64 {
	text := append(info.Narinfo().Bytes(), strconv.FormatBool(info.Ultimate)...)
	return maphash.Bytes(sumSeed, text)
}

func (r *remote) pause(poll time.Duration) time.Duration { return remotePollFactor * poll }

func (r *remote) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.Close()
}
