# Makes the system: links to what the packages in $packages have. Run by /bin/sh.
set -eu
export PATH=/usr/bin:/bin LC_ALL=C
for package in $packages; do
  for folder in bin lib share/man/man1 share/man/man3 share/doc; do
    for file in "$package/$folder"/*; do
      if [ -e "$file" ]; then
        mkdir -p "$out/sw/$folder"
        ln -sfn "$file" "$out/sw/$folder/${file##*/}"
      fi
    done
  done
  echo "$package" >>"$out/packages"
done
