package lab

import (
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// GenuineCache writes a binary cache of genuine records of cache.nixos.org,
// those whose NARs are at hand, with the NARs uncompressed. It returns the
// records.
func (l *Lab) GenuineCache(dir string) []*narinfo.Info {
	l.t.Helper()
	l.write(filepath.Join(dir, "nix-cache-info"), cacheInfo)
	nars, err := fs.Glob(cachetest.FS, "nar/*.nar")
	if err != nil || len(nars) == 0 {
		l.t.Fatalf("lab: no genuine NARs: %v", err)
	}
	var infos []*narinfo.Info
	for _, name := range nars {
		part := strings.TrimSuffix(path.Base(name), ".nar")
		info, err := narinfo.Parse(l.genuine("narinfo/" + part + ".narinfo"))
		if err != nil {
			l.t.Fatalf("lab: %v", err)
		}
		info.URL, info.Compression = "nar/"+part+".nar", "none"
		info.FileHash, info.FileSize = info.NARHash.String(), info.NARSize
		l.write(filepath.Join(dir, part+".narinfo"), string(info.Bytes()))
		l.write(filepath.Join(dir, info.URL), string(l.genuine(name)))
		infos = append(infos, info)
	}
	return infos
}

func (l *Lab) genuine(name string) []byte {
	l.t.Helper()
	data, err := cachetest.FS.ReadFile(name)
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	return data
}
