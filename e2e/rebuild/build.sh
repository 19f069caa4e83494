# Builds one package from $src, whose folders say what there is. Run by /bin/sh.
set -eu
export PATH=/usr/bin:/bin LC_ALL=C
: "${dev:=$out}" "${man:=$out}"

# What a header includes must be found as well.
includes=
include() {
  for header; do
    case " $includes " in *" -I$header/include "*) continue ;; esac
    includes="$includes -I$header/include"
    if [ -f "$header/nix-support/propagated-build-inputs" ]; then
      include $(cat "$header/nix-support/propagated-build-inputs")
    fi
  done
}
include $headers
link="-Wl,-rpath,$out/lib -Wl,--build-id=$buildID"
for library in $libraries; do
  link="$link -L$library/lib -Wl,-rpath,$library/lib"
done
link="$link $links"

# Compilers take most of the time. So their objects are kept beside the store, by
# the preprocessed text, which names whatever paths the object will: another build
# would make the same again.
objects=${NIX_STORE%/store}/var/objects
mkdir -p "$objects"
compile() {
  cc=$1 file=$2
  flags="-Og -w -fPIC -fstack-protector-strong -D_FORTIFY_SOURCE=2 -DPREFIX=\"$out\" -DVERSION=\"$version\""
  cd "$src/src"
  key=$({ echo "$cc $file"; $cc $flags $includes -I"$src/include" -E -P "$file"; } | sha256sum | cut -c1-64)
  cd "$work"
  if [ ! -f "$objects/$key" ]; then
    (cd "$src/src" && $cc $flags $includes -I"$src/include" -c "$file" -o "$work/new.o")
    mv new.o "$objects/$key.$$" && mv "$objects/$key.$$" "$objects/$key"
  fi
  cp "$objects/$key" "$file.o"
}
work=$PWD
if [ -d "$src/src" ]; then
  for file in "$src"/src/*.c; do compile gcc "${file##*/}"; done
  for file in "$src"/src/*.cc; do [ -f "$file" ] && compile g++ "${file##*/}"; done
fi

# place writes files in which paths are still to be filled in.
place() {
  mkdir -p "$2"
  for file in "$1"/*; do
    sed -e "s|@shell@|$shell|g; s|@out@|$out|g; s|@dev@|$dev|g; s|@man@|$man|g; s|@version@|$version|g" \
      -e "s|@libraries@|$libraries|g" "$file" >"$2/${file##*/}"
  done
}

mkdir -p "$out"
case $pname in
lib*)
  mkdir -p "$out/lib"
  soname=$pname.so.${version%%.*}
  $compiler -shared -Wl,-soname,"$soname" -o "$out/lib/$pname.so.$version" *.o $link
  [ -e "$out/lib/$soname" ] || ln -s "$pname.so.$version" "$out/lib/$soname"
  ln -s "$soname" "$out/lib/$pname.so"
  place "$src/pkgconfig" "$dev/lib/pkgconfig"
  mkdir -p "$dev/nix-support"
  echo "$out $headers" >"$dev/nix-support/propagated-build-inputs"
  cp -r "$src/include" "$dev/include"
  ;;
*)
  if [ -d "$src/src" ]; then
    mkdir -p "$out/bin"
    $compiler -o "$out/bin/$pname" *.o $link
  fi
  ;;
esac

if [ -d "$src/bin" ]; then
  [ -f "$src/bin/$pname" ] && [ -f "$out/bin/$pname" ] && mv "$out/bin/$pname" "$out/bin/.$pname-wrapped"
  place "$src/bin" "$out/bin"
  chmod +x "$out"/bin/*
fi
if [ -d "$src/share" ]; then
  mkdir -p "$out/share/$pname"
  cp -r "$src"/share/* "$out/share/$pname/"
fi
if [ -d "$src/doc" ]; then
  place "$src/doc" "$out/share/doc/$pname"
fi
if [ -d "$src/man" ]; then
  for section in "$src"/man/*; do
    place "$section" "$man/share/man/${section##*/}"
    gzip -9n "$man/share/man/${section##*/}"/*
  done
fi
