package substituter

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// expiring remembers a bounded number of values for a while. (The expirable
// LRU of the same module starts a goroutine that never ends.)
type expiring[K comparable, V any] struct {
	mu  sync.Mutex
	lru *simplelru.LRU[K, expiringValue[V]]
}

type expiringValue[V any] struct {
	value V
	until time.Time
}

func newExpiring[K comparable, V any](size int) *expiring[K, V] {
	lru, err := simplelru.NewLRU[K, expiringValue[V]](size, nil)
	if err != nil {
		panic("substituter: " + err.Error()) // the size is a positive constant
	}
	return &expiring[K, V]{lru: lru}
}

func (e *expiring[K, V]) get(key K) (V, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.lru.Get(key)
	if ok && time.Now().After(v.until) {
		e.lru.Remove(key)
		return expiringValue[V]{}.value, false
	}
	return v.value, ok
}

// left returns a value and how long it still counts; 0 means that there is none.
func (e *expiring[K, V]) left(key K) (V, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, _ := e.lru.Peek(key)
	return v.value, max(time.Until(v.until), 0)
}

func (e *expiring[K, V]) put(key K, value V, ttl time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lru.Add(key, expiringValue[V]{value, time.Now().Add(ttl)})
}

func (e *expiring[K, V]) clear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lru.Purge()
}

func (e *expiring[K, V]) remove(key K) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lru.Remove(key)
}
