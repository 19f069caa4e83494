package substituter_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// oneFile returns the NAR of a file.
func oneFile(contents []byte) []byte {
	before, behind := nar.AroundFile(int64(len(contents)))
	return bytes.Join([][]byte{before, contents, behind}, nil)
}

// addressedPath makes a store path named after its content, as Nix does: kind is
// the beginning of the content address. No key has signed it.
func addressedPath(t *testing.T, kind, name string, contents []byte) *path {
	t.Helper()
	b := oneFile(contents)
	method, algorithm, _ := strings.Cut(strings.TrimSuffix(kind, ":"), ":")
	if rest, recursive := strings.CutPrefix(algorithm, "r:"); recursive {
		method, algorithm, contents = "fixed:r", rest, b
	}
	var sum []byte
	switch algorithm {
	case "md5":
		h := md5.Sum(contents)
		sum = h[:]
	case "sha1":
		h := sha1.Sum(contents)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(contents)
		sum = h[:]
	default:
		h := sha256.Sum256(contents)
		sum = h[:]
	}
	ca := kind + nix.EncodeBase32(sum)
	pathKind := "source"
	switch {
	case method == "text":
		pathKind = "text"
	case method != "fixed:r" || algorithm != "sha256":
		outer := sha256.Sum256(fmt.Appendf(nil, "fixed:out:%s:%x:", strings.TrimPrefix(strings.TrimSuffix(kind, ":"), "fixed:"), sum))
		pathKind, sum = "output:out", outer[:]
	}
	return named(t, pathKind, sum, name, ca, b)
}

// selfish makes a path whose file names the path itself.
func selfish(t *testing.T, name string, size int) *path {
	t.Helper()
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(noise)
	contents := func(part string) []byte { return oneFile(append([]byte("I am "+part+"\n"), noise...)) }
	blank := contents(strings.Repeat("\x00", 32))
	sum := sha256.New()
	sum.Write(blank)
	fmt.Fprintf(sum, "|%d", bytes.Index(blank, make([]byte, 32)))
	p := named(t, "source:self", sum.Sum(nil), name, "fixed:r:sha256:"+nix.EncodeBase32(sum.Sum(nil)), blank)
	p.nar = contents(p.part().String())
	p.info.NARHash = sha256.Sum256(p.nar)
	p.info.References = []nix.StorePath{p.info.StorePath}
	return p
}

func named(t *testing.T, kind string, sum []byte, name, ca string, b []byte) *path {
	t.Helper()
	whole := sha256.Sum256(fmt.Appendf(nil, "%s:sha256:%x:%s:%s", kind, sum, nix.StoreDir, name))
	var part nix.HashPart
	for i, c := range whole {
		part[i%len(part)] ^= c
	}
	storePath, err := nix.NewStorePath(part, name)
	if err != nil {
		t.Fatal(err)
	}
	return &path{&narinfo.Info{
		StorePath: storePath, URL: "nar/" + name + ".nar", Compression: "none",
		NARHash: sha256.Sum256(b), NARSize: int64(len(b)), CA: ca,
	}, b}
}

// falsified keeps the name of the path and its address, for other content.
func (p *path) falsified() *path {
	info, b := *p.info, bytes.Clone(p.nar)
	b[200] ^= 1
	info.NARHash = sha256.Sum256(b)
	return &path{&info, b}
}

// addressKinds are the content addresses that Nix makes, each with a way to
// make one.
func addressKinds(t *testing.T, size int) map[string]*path {
	t.Helper()
	contents := bytes.Repeat([]byte("0123456789"), size/10)
	paths := map[string]*path{"refers to itself": selfish(t, "selfish", size)}
	for _, kind := range []string{"text:sha256:", "fixed:sha256:", "fixed:sha1:", "fixed:md5:", "fixed:sha512:", "fixed:r:sha1:", "fixed:r:md5:", "fixed:r:sha512:"} {
		paths[kind] = addressedPath(t, kind, "addressed", contents)
	}
	return paths
}

func TestUnsignedContentOfAnUpstream(t *testing.T) {
	for name, p := range addressKinds(t, 1000) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.cache.add(p)
			l.start()
			_, body := l.get(p.narinfoURL(), http.StatusOK)
			if !bytes.Contains(body, []byte("\nCA: "+p.info.CA+"\n")) {
				t.Errorf("Nix gets no content address, and so no reason to accept it:\n%s", body)
			}
			l.getNAR(p)

			// After a restart the content is checked as before.
			l.cache.add(&path{p.info, p.falsified().nar})
			l.start()
			l.getNARFails(p)
			l.cache.add(p)
			l.start().getNAR(p)
		})
	}
}

// getNARFails wants a 404 for the NAR.
func (l *lab) getNARFails(p *path) {
	l.t.Helper()
	l.get(p.narURL(), http.StatusNotFound)
}

func TestUnsignedContentThatIsNotWhatItsPathSays(t *testing.T) {
	for name, p := range addressKinds(t, 1000) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			wrong := p.falsified()
			l.cache.add(wrong)
			l.start()
			for range 3 {
				l.getNARFails(wrong)
			}
			l.get(p.narinfoURL(), http.StatusNotFound)
			if n := l.cache.requests(wrong.info.URL); n != 1 {
				t.Errorf("the NAR is fetched %d times, want once", n)
			}

			// The record is refused, not the path.
			l.cache.add(p)
			l.getNAR(p)
		})
	}
}

func TestLargeUnsignedContent(t *testing.T) {
	for _, p := range []*path{
		addressedPath(t, "fixed:sha256:", "large", bytes.Repeat([]byte("0123456789"), 2<<20)),
		selfish(t, "selfish", 20<<20),
	} {
		t.Run(p.info.CA, func(t *testing.T) {
			l := newLab(t)
			l.cache.add(p)
			l.start()
			l.getNAR(p)
			for _, offset := range []int{1, 3<<20 + 5, len(p.nar) - 1} {
				l.getFrom(p, offset)
			}
			l.start().getFrom(p, 5<<20)
		})
		t.Run("false "+p.info.CA, func(t *testing.T) {
			l := newLab(t)
			wrong := p.falsified()
			l.cache.add(wrong)
			l.start()
			l.get(wrong.narinfoURL(), http.StatusOK)
			resp, body, err := l.do(http.MethodGet, wrong.narURL())
			if err == nil || resp.StatusCode != http.StatusOK || len(body) >= len(wrong.nar) {
				t.Fatalf("%d of %d wrong bytes, %v", len(body), len(wrong.nar), err)
			}
			// Nix resumes, and must be sent on to its next substituter.
			l.get(wrong.narURL(), http.StatusNotFound, "Range", fmt.Sprintf("bytes=%d-", len(body)))
			l.get(p.narinfoURL(), http.StatusNotFound)
		})
	}
}

// A cut transfer is resumed by Nix; what came before the cut counts.
func TestResumeBehindFalseContent(t *testing.T) {
	l := newLab(t)
	p := addressedPath(t, "fixed:sha256:", "large", bytes.Repeat([]byte("0123456789"), 2<<20))
	wrong := p.falsified()
	l.cache.add(wrong)
	l.start()
	l.get(wrong.narinfoURL(), http.StatusOK)
	resp, body, err := l.do(http.MethodGet, wrong.narURL(), "Range", "bytes=5000000-")
	if err == nil || resp.StatusCode != http.StatusPartialContent {
		t.Errorf("the end of false content is served complete: %d, %d bytes", resp.StatusCode, len(body))
	}
}

func TestUnsignedContentThatIsNotBelieved(t *testing.T) {
	contents := bytes.Repeat([]byte("0123456789"), 100)
	git := addressedPath(t, "fixed:git:sha1:", "git", contents)
	other := addressedPath(t, "text:sha256:", "text", contents)
	other.info.CA = addressedPath(t, "text:sha256:", "text", contents[1:]).info.CA
	referring := addressedPath(t, "text:sha256:", "text", contents)
	referring.info.References = []nix.StorePath{git.info.StorePath}
	executable := addressedPath(t, "fixed:r:sha256:", "tree", contents)
	executable.info.NARHash[0] ^= 1
	for name, p := range map[string]*path{
		"a git tree":                             git,
		"an address of other content":            other,
		"a reference that the path rules out":    referring,
		"a NAR hash that contradicts its own CA": executable,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.cache.add(p)
			l.start()
			l.get(p.narinfoURL(), http.StatusNotFound)
			l.getNARFails(p)
		})
	}
	for name, p := range addressKinds(t, 1000) {
		t.Run("a peer's: "+name, func(t *testing.T) {
			l := newLab(t)
			l.peers.add(p.info)
			l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true})
			l.start()
			l.get(p.narinfoURL(), http.StatusNotFound)
		})
	}
}

// The NAR hash of an unsigned record is an upstream's word; with a peer's
// unsigned copy it is still only that.
func TestUnsignedContentOfUpstreamAndPeer(t *testing.T) {
	l := newLab(t)
	p := addressedPath(t, "text:sha256:", "text", bytes.Repeat([]byte("0123456789"), 100))
	wrong := p.falsified()
	l.cache.add(wrong)
	l.peers.add(wrong.info)
	l.peers.hold(wrong.info.NARHash, holding{nar: wrong.nar, known: true, earned: true})
	l.start()
	l.getNARFails(wrong)
	if _, _, verdicts := l.peers.calls(); slices.Contains(verdicts, false) {
		t.Error("peers are blamed, who gave the bytes that were asked for")
	}
}

// What nobody has signed is not public, whatever its content address proves.
func TestStrangersDoNotHearOfUnsignedContent(t *testing.T) {
	paths := addressKinds(t, 1000)
	paths["NAR"] = addressedPath(t, "fixed:r:sha256:", "tree", bytes.Repeat([]byte("0123456789"), 100))
	for name, p := range paths {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			policy := &share.Policy{Keys: []narinfo.PublicKey{l.key.Public()}}
			l.deps.Askable = policy.Askable
			l.cache.add(p)
			l.cache.remove(p.info.URL) // only peers could have the NAR
			l.start()
			l.get(p.narinfoURL(), http.StatusOK)
			l.getNARFails(p)
			if l.peers.expected[p.info.NARHash] {
				t.Error("providers are looked for among strangers")
			}
			_, wants, _ := l.peers.calls()
			if len(wants) == 0 || wants[0].Strangers {
				t.Errorf("asked for the NAR: %+v; want peers that are no strangers", wants)
			}
		})
	}
}
