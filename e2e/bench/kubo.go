package main

import (
	"fmt"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// kubos are nodes of kubo that have the cargo's NAR, and one that fetches it.
type kubos struct {
	*cargo
	consumer *lab.Kubo
	cid      string
}

// newKubos starts one provider on each host, and the consumer.
func (c *cargo) newKubos(providers []*lab.Host, consumer *lab.Host) (*kubos, error) {
	if err := c.BuildKubo(); err != nil {
		return nil, err
	}
	k := &kubos{cargo: c, consumer: c.Kubo("consumer", lab.KuboConfig{Host: consumer, Routing: "none"})}
	for i, host := range providers {
		provider := c.Kubo(fmt.Sprintf("provider-%d", i), lab.KuboConfig{Host: host, Routing: "none"})
		var err error
		// Blocks as large as a run of chunks is; with the default of 256 KiB it is
		// slower.
		if k.cid, err = provider.Run("add", "--quieter", "--raw-leaves", "--chunker=size-1048576", c.file()); err != nil {
			return nil, err
		}
		k.consumer.Connect(provider)
	}
	return k, nil
}

// rate fetches the NAR and returns how many MB/s came. The consumer forgets it
// again.
func (k *kubos) rate() (float64, error) {
	began := time.Now()
	if err := k.consumer.Discard(k.Within(patience), "cat", k.cid); err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	return k.mb() / took, k.consumer.Discard(k.Within(patience), "repo", "gc", "--silent")
}
