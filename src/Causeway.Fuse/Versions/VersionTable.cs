using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Fuse;

/// <summary>
/// The version table: shared memory in which the server counts the changes of what it serves, so that a guest knows by one look
/// at its memory that what it keeps is still true (docs/coherency.md). This is the server's side, the only one that writes.
/// </summary>
/// <remarks>
/// <para>A change begins on every word it may affect, then happens, then ends on them, and then it is answered. Words are only
/// ever added to, by one instruction each, so that nobody waits for anybody.</para>
/// <para>All methods may be called by any thread. The file behind the table cannot be written by anybody else: it is sealed, and
/// guests get a descriptor that only reads.</para>
/// </remarks>
public sealed unsafe class VersionTable : IDisposable
{
    private readonly MemoryMapping _memory;
    private readonly SafeFileHandle _readable;
    private readonly ulong* _words;

    // Of the layout, which computes them each time.
    private readonly ulong* _log;
    private readonly ulong _logMask;
    private readonly int _logShift;
    private readonly ulong _nameKey0;
    private readonly ulong _nameKey1;
    private readonly Thread _heart;
    private readonly ManualResetEventSlim _isWatched = new();
    private int _watchers;
    private volatile bool _isDisposed;

    private VersionTable(VersionTableLayout layout, MemoryMapping memory, SafeFileHandle readable)
    {
        Layout = layout;
        _memory = memory;
        _readable = readable;
        _words = (ulong*)memory.Address;
        _log = (ulong*)(memory.Address + layout.LogOffset);
        _logMask = (uint)layout.LogEntries - 1;
        _logShift = BitOperations.Log2((uint)layout.LogEntries);
        Span<ulong> random = stackalloc ulong[3];
        Processes.FillRandom(MemoryMarshal.AsBytes(random));
        _nameKey0 = random[0] | 1;
        _nameKey1 = random[1] | 1;
        layout.Write(new Span<byte>(memory.Address, VersionTableLayout.HeaderSize));
        // 46 random bits: the versions of another table are not of this one, whatever they are.
        At(VersionTableLayout.EpochWord) = ((random[2] >> 18) << 16) | VersionWord.Step;
        Volatile.Write(ref At(VersionTableLayout.StateWord), (ulong)VersionTableState.Live);
        _heart = new Thread(Beat) { IsBackground = true, Name = "version-beat" };
        _heart.Start();
    }

    /// <summary>How it is laid out.</summary>
    public VersionTableLayout Layout { get; }

    /// <summary>What tests do to the protocol; null as a rule.</summary>
    internal VersionTableProbe? Probe { get; set; }

    /// <summary>A descriptor of the table that only reads; it stays the table's.</summary>
    public int Descriptor => (int)_readable.DangerousGetHandle();

    /// <summary>
    /// Whether any guest looks at the table now. While none does, a change may begin on the epoch instead of all words but those of
    /// names.
    /// </summary>
    public bool IsWatched => Volatile.Read(ref _watchers) > 0;

    /// <summary>
    /// Called when the first guest begins to look at the table and when the last one ends; null for nobody. By then
    /// <see cref="IsWatched"/> is so, unless it has changed again. Must not wait.
    /// </summary>
    public Action? OnWatched { get; set; }

    /// <summary>The current epoch: what the guest's copy is compared with.</summary>
    public ulong Epoch => Read(VersionTableLayout.EpochWord);

    /// <summary>Makes a table.</summary>
    /// <param name="layout">How it is laid out.</param>
    /// <param name="processDescriptors">
    /// A descriptor of /proc/self/fd, for processes that have locked themselves in; null where /proc can be named.
    /// </param>
    /// <exception cref="ArgumentException">The layout is none.</exception>
    /// <exception cref="ErrnoException">There is no memory for it.</exception>
    public static VersionTable Create(VersionTableLayout layout, int? processDescriptors = null)
    {
        if (!layout.IsValid)
        {
            throw new ArgumentException($"{layout} is no layout of a version table", nameof(layout));
        }

        ulong size = layout.RegionSize;
        using SafeFileHandle file = Memory.CreateMemoryFile(
            "causeway-versions\0"u8, (long)size, FileSeals.Shrink | FileSeals.Grow);
        int descriptor = (int)file.DangerousGetHandle();
        SafeFileHandle? readable = null;
        MemoryMapping? memory = null;
        try
        {
            readable = OpenReadable(descriptor, processDescriptors);
            memory = MemoryMapping.MapShared(file, 0, size, MemoryProtection.Read | MemoryProtection.Write);
            // Not before the mapping that writes: none can be made afterwards, by us or by anybody with the descriptor.
            Memory.AddSeals(descriptor, FileSeals.FutureWrite | FileSeals.Seal).ThrowIfError("seal the version table");
            return new VersionTable(layout, memory, readable);
        }
        catch
        {
            readable?.Dispose();
            memory?.Dispose();
            throw;
        }
    }

    /// <summary>The value of a word.</summary>
    /// <param name="word">Its index.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong Read(uint word) => Volatile.Read(ref At(word));

    /// <summary>The version that a word stands at, to be read before what it covers is; zero when it is being changed.</summary>
    /// <param name="word">Its index; zero for none.</param>
    public ulong ReadVersion(uint word)
    {
        ulong value = word == 0 ? 0 : Read(word);
        if (value == 0 && word != 0)
        {
            // Never changed so far: zero is no version, so it gets its first.
            Interlocked.CompareExchange(ref At(word), VersionWord.Step, 0);
            value = Read(word);
        }

        return VersionWord.ToVersion(value);
    }

    /// <summary>A change of what a word covers begins: nothing that is read from now on until it ends is to be kept.</summary>
    /// <param name="word">Its index.</param>
    /// <returns>The value before.</returns>
    public ulong Begin(uint word)
    {
        if (Probe is { } probe)
        {
            return probe.Begin(ref At(word));
        }

        while (true)
        {
            ulong before = Interlocked.Add(ref At(word), VersionWord.Beginning) - VersionWord.Beginning;
            if ((before & VersionWord.InFlightMask) < VersionWord.InFlightLimit)
            {
                return before;
            }

            // One more would run into the sequence. So many threads do not exist.
            Cancel(word);
            Thread.Yield();
        }
    }

    /// <summary>A change that was begun has happened.</summary>
    /// <param name="word">The word.</param>
    /// <returns>The value now.</returns>
    public ulong End(uint word) => Probe?.End(ref At(word)) ?? Interlocked.Add(ref At(word), VersionWord.Ending);

    /// <summary>A change that was begun has certainly not happened, nor any part of it.</summary>
    /// <param name="word">The word.</param>
    public void Cancel(uint word) => Interlocked.Add(ref At(word), unchecked(0 - VersionWord.Beginning));

    /// <summary>
    /// What a word covers has changed already without us, or is another object from now on: all versions so far are void.
    /// </summary>
    /// <param name="word">The word.</param>
    public void Advance(uint word) => Interlocked.Add(ref At(word), VersionWord.Step);

    /// <summary>Everything that anybody keeps is void: for changes of which it cannot be said what they affect.</summary>
    public void AdvanceEpoch()
    {
        Advance(VersionTableLayout.EpochWord);
        Count(VersionStatistic.EpochChanges);
    }

    /// <summary>Tells who follows the log that words have changed. Not before the change has ended.</summary>
    /// <param name="words">The words; zeros are left out.</param>
    public void Log(params ReadOnlySpan<uint> words)
    {
        int count = 0;
        foreach (uint word in words)
        {
            count += word == 0 ? 0 : 1;
        }

        ulong position = count == 0 ? 0 : Interlocked.Add(ref At(VersionTableLayout.LogHeadWord), (ulong)count) - (ulong)count;
        foreach (uint word in words)
        {
            if (word != 0)
            {
                Volatile.Write(ref LogEntry(position), LogEntryOf(position, word));
                position++;
            }
        }
    }

    /// <summary>The word of a name in a directory. Names share words: whichever changes, all of them are read anew.</summary>
    /// <param name="directory">What tells the directory apart from others.</param>
    /// <param name="name">The name, without a NUL.</param>
    public uint WordOfName(ulong directory, ReadOnlySpan<byte> name)
    {
        ulong hash = Math.BigMul(directory ^ _nameKey0, _nameKey1, out ulong low) ^ low ^ (ulong)name.Length;
        while (name.Length >= sizeof(ulong))
        {
            hash = Math.BigMul(MemoryMarshal.Read<ulong>(name) ^ hash, _nameKey0, out low) ^ low;
            name = name[sizeof(ulong)..];
        }

        ulong rest = 0;
        foreach (byte value in name)
        {
            rest = (rest << 8) | value;
        }

        hash = Math.BigMul(rest ^ hash, _nameKey1, out low) ^ low;
        return (uint)((Layout.NamesOffset / sizeof(ulong)) + (hash & (uint)(Layout.Names - 1)));
    }

    /// <summary>The META word of an object's own pair.</summary>
    /// <param name="slot">Which pair, below <see cref="VersionTableLayout.Inodes"/>.</param>
    public static uint WordOfSlot(int slot) =>
        (uint)((VersionTableLayout.InodesOffset + ((ulong)slot * VersionTableLayout.PairSize)) / sizeof(ulong));

    /// <summary>The META word of a shared pair.</summary>
    /// <param name="key">What tells the object apart from others.</param>
    public uint SharedWordOf(ulong key)
    {
        ulong hash = Math.BigMul(key ^ _nameKey1, _nameKey0, out ulong low) ^ low;
        ulong pair = hash & (uint)(Layout.Shared - 1);
        return (uint)((Layout.SharedOffset + (pair * VersionTableLayout.PairSize)) / sizeof(ulong));
    }

    /// <summary>Counts something, see <see cref="VersionStatistic"/>.</summary>
    /// <param name="what">What.</param>
    /// <param name="change">By how much.</param>
    public void Count(VersionStatistic what, long change = 1) =>
        Interlocked.Add(ref At(VersionTableLayout.StatisticsWord + (uint)what), (ulong)change);

    /// <summary>One more guest looks at the table: its heartbeat is needed.</summary>
    public void AddWatcher()
    {
        if (Interlocked.Increment(ref _watchers) == 1)
        {
            _isWatched.Set();
            OnWatched?.Invoke();
        }
    }

    /// <summary>One guest less.</summary>
    public void RemoveWatcher()
    {
        if (Interlocked.Decrement(ref _watchers) == 0)
        {
            _isWatched.Reset();
            if (Volatile.Read(ref _watchers) > 0)
            {
                _isWatched.Set();
            }

            OnWatched?.Invoke();
        }
    }

    /// <summary>The table is dead for all who see it, and is given back.</summary>
    public void Dispose()
    {
        if (_isDisposed)
        {
            return;
        }

        _isDisposed = true;
        _isWatched.Set();
        _heart.Join();
        Volatile.Write(ref At(VersionTableLayout.StateWord), (ulong)VersionTableState.Dead);
        AdvanceEpoch();
        _isWatched.Dispose();
        _readable.Dispose();
        _memory.Dispose();
    }

    /// <summary>An entry of the log: the word, and above it which time around it is, so that an old entry is told from a new one.</summary>
    internal ulong LogEntryOf(ulong position, uint word) =>
        word | ((((position >> _logShift) + 1) & uint.MaxValue) << 32);

    // SAFETY: indexes come from the layout, never from a guest.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private ref ulong At(uint word) => ref _words[word];

    private ref ulong LogEntry(ulong position) => ref _log[position & _logMask];

    // As long as anybody looks, and not longer: a daemon without guests sleeps.
    private void Beat()
    {
        while (true)
        {
            _isWatched.Wait();
            if (_isDisposed)
            {
                return;
            }

            Interlocked.Increment(ref At(VersionTableLayout.HeartbeatWord));
            Thread.Sleep(VersionTableLayout.HeartbeatInterval);
        }
    }

    private static SafeFileHandle OpenReadable(int descriptor, int? processDescriptors)
    {
        Span<byte> path = stackalloc byte[32];
        int length;
        if (processDescriptors is null)
        {
            System.Text.Unicode.Utf8.TryWrite(path, $"/proc/self/fd/{descriptor}\0", out length);
        }
        else
        {
            System.Text.Unicode.Utf8.TryWrite(path, $"{descriptor}\0", out length);
        }

        int opened = Files.Openat(
            processDescriptors ?? Files.WorkingDirectory, path[..length], OpenFlags.ReadOnly | OpenFlags.CloseOnExec)
            .ThrowIfError("open the version table for reading").Descriptor;
        return new SafeFileHandle(opened, ownsHandle: true);
    }
}
