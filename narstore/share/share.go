// Package share decides what leaves the machine, and is the only door through
// which anything does.
//
// Policy is the rule, one function. Catalog applies it to a store and keeps the
// paths that pass: announcing and every protocol between peers read from the
// Catalog and from nothing else. A path that may not be shared is never in it,
// so for a peer such a path does not exist: it is the same failed lookup, in
// the same time, as for a path that the store does not have.
//
// # The rule
//
// A path is shareable if a key of the policy has signed it and the signature
// verifies over the path's fingerprint, if it is no derivation, and if neither
// its name nor its size is excluded. On the public network the one key is that
// of cache.nixos.org; in a private network it may be a team's own.
//
// Whether this machine built a path itself does not enter into it. A local
// build carries no signature of a policy's key and so stays at home. Where it
// does carry one, the fingerprint that was signed names this very NAR hash: the
// bytes are those that the key's owner published, whoever made them here.
//
// Beside the rule stand marks on single paths: those that the owner withdrew,
// and those whose bytes on the disk turned out not to be what was signed.
package share
