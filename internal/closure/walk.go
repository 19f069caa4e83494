package closure

import (
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// What Nix asks for at one time: narinfos, and NARs since version 2.26.
const (
	NarinfosAtOnce = 25
	NARsAtOnce     = 16
)

// Walk asks for the records of a closure as Nix does to find out what is
// missing: NarinfosAtOnce at a time, those of references as soon as a record
// has named them. It returns them in the order in which they came, or the first
// error of ask.
func Walk(root nix.HashPart, ask func(nix.HashPart) (*narinfo.Info, error)) ([]*narinfo.Info, error) {
	var (
		g     errgroup.Group
		slots = make(chan struct{}, NarinfosAtOnce)

		mu      sync.Mutex
		records []*narinfo.Info
		asked   = make(map[nix.HashPart]bool)
		look    func(nix.HashPart)
	)
	// look is called with mu held.
	look = func(part nix.HashPart) {
		if asked[part] {
			return
		}
		asked[part] = true
		g.Go(func() error {
			slots <- struct{}{}
			info, err := ask(part)
			<-slots
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			records = append(records, info)
			for _, ref := range info.References {
				look(ref.HashPart())
			}
			return nil
		})
	}
	mu.Lock()
	look(root)
	mu.Unlock()
	err := g.Wait()
	return records, err
}
