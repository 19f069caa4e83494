package reuse

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxKin bounds the paths of a family that are considered: there may be
// thousands of some names, such as "source".
const maxKin = 256

// member is a path of the store.
type member struct {
	part nix.HashPart
	name string
	size int64 // of its NAR, in bytes
}

// kin knows the paths of a store by their families, some 150 bytes for each.
type kin struct {
	mu       sync.RWMutex
	families map[string][]member
	// family leads from a path to its family.
	family map[nix.HashPart]string
}

func newKin() *kin {
	return &kin{families: make(map[string][]member), family: make(map[nix.HashPart]string)}
}

func (k *kin) add(info *narstore.PathInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	part := info.Path.HashPart()
	if _, known := k.family[part]; known {
		k.take(part)
	}
	name := strings.Clone(info.Path.Name()) // and not the whole path
	family := familyOf(name)
	k.family[part] = family
	k.families[family] = append(k.families[family], member{part: part, name: name, size: info.NARSize})
}

func (k *kin) remove(part nix.HashPart) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.take(part)
}

// take is remove; mu is held.
func (k *kin) take(part nix.HashPart) {
	family, known := k.family[part]
	if !known {
		return
	}
	delete(k.family, part)
	left := slices.DeleteFunc(k.families[family], func(m member) bool { return m.part == part })
	if len(left) == 0 {
		delete(k.families, family)
	} else {
		k.families[family] = left
	}
}

// familyOf returns the paths of a path's family.
func (k *kin) familyOf(part nix.HashPart) []member {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.Clone(k.families[k.family[part]])
}

func (k *kin) has(part nix.HashPart) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.family[part]
	return ok
}

// relatives returns the other paths of a path's family, the most similar first:
// of the same name; of the same output; of the most similar version; of the most
// similar size.
func (k *kin) relatives(path nix.StorePath, size int64) []member {
	name := path.Name()
	k.mu.RLock()
	all := k.families[familyOf(name)]
	relatives := make([]member, 0, min(len(all), maxKin))
	for i := len(all) - 1; i >= 0 && len(relatives) < maxKin; i-- { // the latest first
		if all[i].part != path.HashPart() {
			relatives = append(relatives, all[i])
		}
	}
	k.mu.RUnlock()
	output := outputOf(name)
	slices.SortStableFunc(relatives, func(a, b member) int {
		return cmp.Or(
			-compareBool(a.name == name, b.name == name),
			-compareBool(outputOf(a.name) == output, outputOf(b.name) == output),
			-cmp.Compare(commonPrefix(a.name, name), commonPrefix(b.name, name)),
			cmp.Compare(abs(a.size-size), abs(b.size-size)),
		)
	})
	return relatives
}

// large returns the paths with NARs of at least so many bytes.
func (k *kin) large(size int64) []member {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var large []member
	for _, family := range k.families {
		for _, m := range family {
			if m.size >= size {
				large = append(large, m)
			}
		}
	}
	return large
}

// familyOf returns the name of a package without its version, which begins
// behind the first dash that no letter follows, as Nix's parseDrvName has it.
func familyOf(name string) string {
	for i := 1; i+1 < len(name); i++ {
		if name[i] == '-' && !isLetter(name[i+1]) {
			return name[:i]
		}
	}
	return name
}

// outputOf returns what names the output in the name of a path, such as "dev",
// or "" for the usual one. A version that ends with a word looks the same, but
// does so in all of its family.
func outputOf(name string) string {
	i := strings.LastIndexByte(name, '-')
	if i < len(familyOf(name)) {
		return ""
	}
	for _, c := range []byte(name[i+1:]) {
		if !isLetter(c) {
			return ""
		}
	}
	return name[i+1:]
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

func abs(n int64) int64 { return max(n, -n) }
