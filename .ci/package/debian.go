package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the packager
	"github.com/goreleaser/nfpm/v2/files"
)

// debian makes a package of each tree for Linux.
func (r *release) debian(context.Context) error {
	packager, err := nfpm.Get("deb")
	if err != nil {
		return err
	}
	scripts := filepath.Join(r.source, ".ci", "package", "deb")
	for t, root := range r.stages {
		if t.os != "linux" {
			continue
		}
		info := nfpm.WithDefaults(&nfpm.Info{
			Name: "nar-p2p", Arch: t.arch, Platform: "linux", Version: r.version, VersionSchema: "none",
			Section: "net", Priority: "optional", Maintainer: r.maintainer, License: "MIT",
			Homepage:    "https://github.com/nar-p2p/nar-p2p",
			Description: "peer-to-peer binary cache for Nix\nA substituter on localhost that fetches store paths from other machines.",
			MTime:       r.date,
			Overridables: nfpm.Overridables{
				Depends: []string{"systemd", "passwd"}, Recommends: []string{"ca-certificates"}, Suggests: []string{"nix-bin"},
				Umask: 0o022,
				Scripts: nfpm.Scripts{
					PostInstall: filepath.Join(scripts, "postinst"), PreRemove: filepath.Join(scripts, "prerm"),
					PostRemove: filepath.Join(scripts, "postrm"),
				},
				Contents: files.Contents{
					{Source: root, Destination: "/", Type: files.TypeTree},
					{
						Source: filepath.Join(scripts, "default"), Destination: "/etc/default/nar-p2p", Type: files.TypeConfigNoReplace,
						FileInfo: &files.ContentFileInfo{Mode: 0o644, MTime: r.date},
					},
				},
			},
		})
		if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
			return err
		}
		// What was installed just now is as old as everything else.
		for _, content := range info.Contents {
			content.FileInfo.MTime = r.date
		}
		name := filepath.Join(r.out, fmt.Sprintf("nar-p2p_%s_%s.deb", r.version, t.arch))
		file, err := os.Create(name)
		if err != nil {
			return err
		}
		if err := packager.Package(info, file); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}
