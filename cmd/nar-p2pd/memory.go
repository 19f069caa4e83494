package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// trimInterval is how often it is looked whether memory can be given back.
	trimInterval = time.Minute
	// trimWorth is how many bytes must be to gain: a collection takes some
	// milliseconds of a core.
	trimWorth = 8 << 20
)

// giveBackMemory gives memory back to the system that the node needs no more.
// Go's runtime keeps as much again as it has last needed, and an idle node
// would collect garbage so rarely that it kept for long what the first
// announcement or a large transfer took.
func giveBackMemory(ctx context.Context) error {
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		metrics.Read(samples)
		live, objects, free := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
		if objects+free > live+trimWorth {
			debug.FreeOSMemory()
		}
	}
}
