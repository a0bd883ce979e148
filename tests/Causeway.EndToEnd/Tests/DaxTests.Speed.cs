namespace Causeway.EndToEnd;

/// <content>How fast it is; run by hand, with -explicit only: numbers of one machine prove nothing on another.</content>
public sealed partial class DaxTests
{
    [Fact(Explicit = true)]
    public async Task Speed_of_DAX_beside_the_page_cache()
    {
        const string never = "cd /; umount /mnt/submount 2>/dev/null || true; umount /mnt; mount -t virtiofs -o dax=never causeway /mnt";
        await HostAsync("head -c 12M /dev/urandom >file");
        for (int turn = 0; turn < 3; turn++)
        {
            foreach ((string name, string mount) in ((string, string)[])[("with DAX", ByFile), ("without", never)])
            {
                await GuestAsync(mount, inDirectory: false);
                string output = await GuestAsync("""
                    echo 3 >/proc/sys/vm/drop_caches
                    python3 - <<'END'
                    import mmap, os, random, time
                    size = 12 << 20
                    def cached():
                        return sum(int(l.split()[1]) for l in open('/proc/meminfo') if l.startswith('Cached:'))
                    def timed(what, work):
                        before = time.monotonic()
                        work()
                        print(f'{what} {(time.monotonic() - before) * 1000:.1f} ms', end='; ')
                    fd = os.open('file', os.O_RDONLY)
                    m = mmap.mmap(fd, size, prot=mmap.PROT_READ)
                    offsets = list(range(0, size, 4096))
                    random.Random(1).shuffle(offsets)
                    memory = cached()
                    def rand():
                        for o in offsets[:1500]:
                            m[o:o + 4096]
                    def sequential():
                        for o in range(0, size, 1 << 20):
                            os.pread(fd, 1 << 20, o)
                    timed('1500 random 4 KiB by mmap, first', rand)
                    timed('again', rand)
                    timed('12 MiB by read, first', sequential)
                    timed('again', sequential)
                    print(f'page cache grew by {cached() - memory} KiB')
                    END
                    """);
                Console.Error.WriteLine($"{name}: {output}");
            }
        }
    }
}
