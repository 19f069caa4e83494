package manifests

import "time"

// Bound sets how many bytes are kept, and the clock that tells the last use.
func (k *Keeper) Bound(limit int64, now func() time.Time) {
	k.kept.limit, k.kept.now = limit, now
}

// Patience sets how long a computation waits for room.
func (k *Keeper) Patience(d time.Duration) { k.room.patience = d }
