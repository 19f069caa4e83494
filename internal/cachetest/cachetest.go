// Package cachetest holds genuine records and NARs of cache.nixos.org, for
// tests and for the demo.
//
// Every record carries a signature that verifies with Key. Every NAR's sha-256
// is the signed NAR hash of the record of the same hash part.
package cachetest

import "embed"

// Key is the public key of cache.nixos.org.
const Key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="

// FS holds narinfo/<hash part>.narinfo (200 files) and nar/<hash part>.nar (30).
//
//go:embed nar narinfo
var FS embed.FS
