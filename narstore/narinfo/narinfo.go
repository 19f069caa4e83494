// Package narinfo reads, writes, signs and verifies narinfos: the records in
// which a binary cache describes one store path.
//
// A narinfo is lines of "Key: value". Only StorePath, NarHash, NarSize and
// References are signed (see Info.Fingerprint); the rest is the word of
// whoever sent the record. The format follows Nix's nar-info.cc.
package narinfo

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// MaxSize is the largest narinfo that Parse accepts, in bytes. The largest
// genuine ones name about 4,000 references in 250 KB.
const MaxSize = 2 << 20

// maxLines bounds the number of lines, of which only Sig lines may repeat.
const maxLines = 256

// Info is one narinfo.
type Info struct {
	StorePath nix.StorePath
	// URL is where the NAR is, relative to the cache.
	URL string
	// Compression of the NAR at URL. Nix takes a missing line for bzip2, and
	// so does Parse.
	Compression string
	// FileHash and FileSize describe the compressed file at URL. Optional:
	// "" and 0.
	FileHash string
	FileSize int64
	// NARHash and NARSize describe the uncompressed NAR; NARSize is in bytes
	// and positive.
	NARHash nix.NARHash
	NARSize int64
	// References in the order of the record, possibly with the path itself.
	References []nix.StorePath
	// Deriver is the derivation that built the path, or zero where unknown.
	Deriver nix.StorePath
	// Signatures holds the well-formed Sig lines; nothing is verified yet.
	Signatures []Signature
	// Malformed counts the Sig lines that are not. Bytes does not write them.
	Malformed int
	// CA is the content address, unsigned and unverified, or "".
	CA string
}

// Parse reads one narinfo. Unknown keys and malformed Sig lines are passed
// over, as they cannot make a record more trusted; everything else that Nix
// would reject or misread is an error.
func Parse(data []byte) (*Info, error) {
	info, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("narinfo: %w", err)
	}
	return info, nil
}

func parse(data []byte) (*Info, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%d bytes are more than %d", len(data), MaxSize)
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		return nil, errors.New("the last line is not terminated")
	}
	if bytes.ContainsAny(data, "\x00\r") {
		return nil, errors.New("contains a NUL or carriage return")
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if len(lines) > maxLines {
		return nil, fmt.Errorf("more than %d lines", maxLines)
	}
	info := &Info{}
	seen := make(map[string]bool, len(lines))
	for i, line := range lines {
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			// "References: " is often written with its blank cut off.
			if key, ok = strings.CutSuffix(line, ":"); !ok {
				return nil, fmt.Errorf("line %d: no key in %.80q", i+1, line)
			}
		}
		if key != "Sig" && seen[key] {
			return nil, fmt.Errorf("line %d: %.80s is given twice", i+1, key)
		}
		seen[key] = true
		if err := info.set(key, value); err != nil {
			return nil, fmt.Errorf("line %d: %.80s: %w", i+1, key, err)
		}
	}
	for _, key := range []string{"StorePath", "URL", "NarHash", "NarSize"} {
		if !seen[key] {
			return nil, fmt.Errorf("%s is missing", key)
		}
	}
	if info.Compression == "" {
		info.Compression = "bzip2"
	}
	return info, nil
}

func (i *Info) set(key, value string) (err error) {
	switch key {
	case "StorePath":
		i.StorePath, err = nix.ParseStorePath(value)
	case "URL":
		if i.URL = value; value == "" {
			err = errors.New("empty")
		}
	case "Compression":
		i.Compression = value
	case "FileHash":
		i.FileHash = value
	case "FileSize":
		i.FileSize, err = parseSize(value)
	case "NarHash":
		i.NARHash, err = nix.ParseNARHash(value)
	case "NarSize":
		if i.NARSize, err = parseSize(value); err == nil && i.NARSize == 0 {
			err = errors.New("zero")
		}
	case "References":
		i.References, err = parseReferences(value)
	case "Deriver":
		if value != "unknown-deriver" && value != "" {
			i.Deriver, err = nix.ParseBaseName(value)
		}
	case "Sig":
		if sig, err := ParseSignature(value); err == nil {
			i.Signatures = append(i.Signatures, sig)
		} else {
			i.Malformed++
		}
	case "CA":
		i.CA = value
	}
	return err
}

// parseSize parses a decimal number of bytes without sign.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("size %.40q is not a number of bytes", s)
	}
	return int64(n), nil
}

func parseReferences(s string) ([]nix.StorePath, error) {
	names := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })
	if len(names) == 0 {
		return nil, nil
	}
	refs := make([]nix.StorePath, len(names))
	for i, name := range names {
		ref, err := nix.ParseBaseName(name)
		if err != nil {
			return nil, err
		}
		refs[i] = ref
	}
	return refs, nil
}

// unwritable are what no value of a record can hold.
const unwritable = "\x00\r\n"

// CheckValue returns an error where the text, such as a content address from a
// store's database, would be more than one value in a record.
func CheckValue(text string) error {
	if strings.ContainsAny(text, unwritable) {
		return fmt.Errorf("%.80q does not fit into a line", text)
	}
	return nil
}

// Bytes returns the record in the form in which caches serve it. Compression
// is always written: without it Nix assumes bzip2, and Nix 2.34 crashes.
func (i *Info) Bytes() []byte {
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	line("StorePath", i.StorePath.String())
	line("URL", i.URL)
	line("Compression", i.Compression)
	if i.FileHash != "" {
		line("FileHash", i.FileHash)
	}
	if i.FileSize != 0 {
		line("FileSize", strconv.FormatInt(i.FileSize, 10))
	}
	line("NarHash", i.NARHash.String())
	line("NarSize", strconv.FormatInt(i.NARSize, 10))
	names := make([]string, len(i.References))
	for j, ref := range i.References {
		names[j] = ref.BaseName()
	}
	line("References", strings.Join(names, " "))
	if !i.Deriver.IsZero() {
		line("Deriver", i.Deriver.BaseName())
	}
	for _, sig := range i.Signatures {
		line("Sig", sig.String())
	}
	if i.CA != "" {
		line("CA", i.CA)
	}
	return b.Bytes()
}
