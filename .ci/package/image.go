package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// certificates are those by which the daemon knows caches. Where the machine has
// none, the image has none.
const certificates = "/etc/ssl/certs/ca-certificates.crt"

// user is nobody in particular, to whom stateDir belongs.
const (
	user     = 65532
	stateDir = "/var/lib/nar-p2p"
)

// image makes an OCI image layout with an image for each architecture of Linux.
func (r *release) image(context.Context) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, t := range r.targets {
		if t.os != "linux" {
			continue
		}
		image, err := r.imageFor(t)
		if err != nil {
			return err
		}
		platform := &v1.Platform{OS: t.os, Architecture: t.arch}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	_, err := layout.Write(filepath.Join(r.out, "oci"), index)
	return err
}

func (r *release) imageFor(t target) (v1.Image, error) {
	tree := fstest.MapFS{stateDir[1:]: {Mode: os.ModeDir | 0o755}}
	for _, program := range []string{"nar-p2pd", "p2pctl"} {
		data, err := os.ReadFile(filepath.Join(r.stages[t], "usr/bin", program))
		if err != nil {
			return nil, err
		}
		tree["usr/bin/"+program] = &fstest.MapFile{Data: data, Mode: 0o755}
	}
	if data, err := os.ReadFile(certificates); err == nil {
		tree[certificates[1:]] = &fstest.MapFile{Data: data, Mode: 0o644}
	}
	data, err := r.tar(tree, "", map[string]int{stateDir[1:]: user})
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.date}}})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, r.configFile(image, t))
}

func (r *release) configFile(image v1.Image, t target) *v1.ConfigFile {
	made, err := image.ConfigFile()
	if err != nil {
		panic("package: an image without a configuration: " + err.Error())
	}
	file := made.DeepCopy()
	file.OS, file.Architecture, file.Created = t.os, t.arch, v1.Time{Time: r.date}
	file.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", user, user), Entrypoint: []string{"/usr/bin/nar-p2pd"}, WorkingDir: "/",
		Env: []string{
			"PATH=/usr/bin", "NAR_P2P_STATE_DIR=" + stateDir, "NAR_P2P_SUBSTITUTER_LISTEN=0.0.0.0:8460",
			"NAR_P2P_SOCKET=" + stateDir + "/control.sock", // where p2pctl looks
		},
		Volumes:      map[string]struct{}{stateDir: {}},
		ExposedPorts: map[string]struct{}{"8460/tcp": {}, "8461/tcp": {}, "8461/udp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title": "nar-p2p", "org.opencontainers.image.version": r.version, "org.opencontainers.image.licenses": "MIT",
		},
	}
	return file
}
