package chunk

import (
	"bytes"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// textLength is the number of characters of a hash part.
	textLength = 32
	// runLength is that of a run: '/', hash part, '-'.
	runLength = textLength + 2
	// maskByte takes the place of every character of a hash part. It is none of
	// the alphabet, so masked bytes hold no run, and it does not occur in text.
	maskByte = 0
)

// run is one masked run.
type run struct {
	// at is the offset of its '/'.
	at   int
	text [textLength]byte
}

// end is the offset behind the run's '-'.
func (r *run) end() int { return r.at + runLength }

// restore undoes the masking of the run in b.
func (r *run) restore(b []byte) { copy(b[r.at+1:], r.text[:]) }

// nextRun returns the offset of the first run in b at or behind from. Where
// there is none it returns false and the offset from which on more bytes could
// show one.
func nextRun(b []byte, from int) (at int, ok bool) {
	for at = from; at+runLength <= len(b); at++ {
		i := bytes.IndexByte(b[at:len(b)-runLength+1], '/')
		if i < 0 {
			return len(b) - runLength + 1, false
		}
		at += i
		if isRun(b[at : at+runLength]) {
			return at, true
		}
	}
	return at, false
}

// isRun reports whether b, of runLength bytes that begin with '/', is a run.
// The '-' is checked first: it is rare where the alphabet is not.
func isRun(b []byte) bool {
	if b[runLength-1] != '-' {
		return false
	}
	for _, c := range b[1 : runLength-1] {
		if !nix.IsBase32(c) {
			return false
		}
	}
	return true
}

// maskRuns masks the runs of b from an offset on, in place, and appends them to
// runs. It returns the offset up to which b is known to be masked.
func maskRuns(b []byte, from int, runs []run) ([]run, int) {
	for {
		at, ok := nextRun(b, from)
		if !ok {
			return runs, at
		}
		r := run{at: at}
		text := b[at+1 : at+1+textLength]
		copy(r.text[:], text)
		for i := range text {
			text[i] = maskByte
		}
		runs = append(runs, r)
		from = r.end()
	}
}

// Mask returns a copy of a chunk in which every run is masked, and the hash
// parts of the runs in order.
func Mask(chunk []byte) (masked []byte, parts []nix.HashPart) {
	masked = bytes.Clone(chunk)
	runs, _ := maskRuns(masked, 0, nil)
	for i := range runs {
		parts = append(parts, hashPart(runs[i].text))
	}
	return masked, parts
}

// hashPart decodes the text of a run: any 32 characters of the alphabet are a
// hash part.
func hashPart(text [textLength]byte) nix.HashPart {
	part, err := nix.ParseHashPart(string(text[:]))
	if err != nil {
		panic("chunk: a run is no hash part: " + err.Error())
	}
	return part
}
