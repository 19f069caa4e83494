package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// archive makes a tar file of each installed tree, with what is in its prefix at
// the top of a folder.
func (r *release) archive(context.Context) error {
	for t, root := range r.stages {
		prefix := "usr"
		if t.os == "darwin" {
			prefix = "usr/local"
		}
		name := "nar-p2p-" + r.version + "-" + t.os + "-" + t.arch
		data, err := r.tar(os.DirFS(filepath.Join(root, prefix)), name, nil)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		writer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := writer.Write(data); err != nil {
			return err
		}
		if err := writer.Close(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.out, name+".tar.gz"), packed.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// tar returns the files of tree below a folder, in order, with one date. They belong to
// root, but for those that owners has, by name.
func (r *release) tar(tree fs.FS, folder string, owners map[string]int) ([]byte, error) {
	var data bytes.Buffer
	writer := tar.NewWriter(&data)
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		header := &tar.Header{
			Name: path.Join(folder, name), Typeflag: tar.TypeReg, Size: info.Size(), Mode: 0o644,
			Uid: owners[name], Gid: owners[name], ModTime: r.date, Format: tar.FormatPAX,
		}
		if entry.IsDir() {
			header.Name, header.Typeflag, header.Size = header.Name+"/", tar.TypeDir, 0
		}
		if entry.IsDir() || info.Mode()&0o100 != 0 {
			header.Mode = 0o755
		}
		if header.Name == "./" {
			return nil
		}
		if err := writer.WriteHeader(header); err != nil || entry.IsDir() {
			return err
		}
		file, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(writer, file)
		return err
	})
	if err != nil {
		return nil, err
	}
	return data.Bytes(), writer.Close()
}
