namespace Causeway.Tests.Coherency.Model;

/// <summary>
/// Everything there is in the model at one moment: the table, the host, the daemon's registry of slots, and where each process
/// is in its program. Two states with the same cells are the same state.
/// </summary>
/// <remarks>
/// The host's objects are numbers. What an object is like is a number, too, that grows with each change, so that older is
/// smaller. A word is <c>4 * sequence + in flight</c>, and 0 is no version, as in VersionWord.
/// </remarks>
internal sealed class ModelState : IEquatable<ModelState>
{
    public const int MaxObjects = 2;
    public const int MaxWords = 3;
    public const int RegistersPerProcess = 12;

    /// <summary>What stands for no word.</summary>
    public const byte None = 0xff;

    private const int Words = 0;
    private const int Pins = Words + MaxWords;
    private const int Hosts = Pins + MaxWords;
    private const int FinishedChanges = Hosts + MaxObjects;
    private const int Registry = FinishedChanges + MaxObjects;
    private const int EpochCell = Registry + MaxObjects;
    private const int FirstRegister = EpochCell + 1;

    private readonly byte[] _cells;

    public ModelState(int processes)
    {
        _cells = new byte[FirstRegister + (processes * RegistersPerProcess)];
        for (int word = 0; word < MaxWords; word++)
        {
            this[word] = ModelWord.First;
        }

        Array.Fill(_cells, None, Registry, MaxObjects);
        Epoch = ModelWord.Step;
    }

    private ModelState(byte[] cells) => _cells = cells;

    /// <summary>A word of the table (VersionTable.At).</summary>
    public byte this[int word]
    {
        get => _cells[Words + word];
        set => _cells[Words + word] = value;
    }

    /// <summary>The table's epoch (VersionTable.Epoch).</summary>
    public ref byte Epoch => ref _cells[EpochCell];

    /// <summary>What an object on the host is like now.</summary>
    public ref byte Host(int thing) => ref _cells[Hosts + thing];

    /// <summary>The newest of an object's states whose change was answered.</summary>
    public ref byte Finished(int thing) => ref _cells[FinishedChanges + thing];

    /// <summary>Which word the daemon has given to an object; <see cref="None"/> for none so far.</summary>
    public ref byte WordOf(int thing) => ref _cells[Registry + thing];

    /// <summary>How many requests use a word's slot, so that it must not be freed.</summary>
    public ref byte PinsOf(int word) => ref _cells[Pins + word];

    /// <summary>What a process remembers; the first register is where it is in its program.</summary>
    public ref byte Register(int process, int register) =>
        ref _cells[FirstRegister + (process * RegistersPerProcess) + register];

    public ModelState Copy() => new((byte[])_cells.Clone());

    public bool Equals(ModelState? other) => other is not null && _cells.AsSpan().SequenceEqual(other._cells);

    public override bool Equals(object? obj) => Equals(obj as ModelState);

    public override int GetHashCode()
    {
        var hash = default(HashCode);
        hash.AddBytes(_cells);
        return hash.ToHashCode();
    }
}

/// <summary>VersionWord with few bits: two for the changes under way.</summary>
internal static class ModelWord
{
    public const byte First = Step;
    public const byte Beginning = 1;
    public const byte Ending = Step - Beginning;
    public const byte Step = 4;

    public static int InFlight(byte word) => word & (Step - 1);

    /// <summary>VersionWord.ToVersion.</summary>
    public static byte ToVersion(byte word) => InFlight(word) == 0 ? word : (byte)0;
}
