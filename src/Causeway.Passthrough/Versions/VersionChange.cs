using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// A change of the host's files on its way: begun on all words that it may affect, and ended on all of them once it has happened.
/// One per thread, used again and again; <see cref="None"/> where there is no version table.
/// </summary>
/// <remarks>
/// <para>Ends when it is disposed of, unless it was settled before.</para>
/// <para>While no guest looks at the table a change is one of everything: the epoch's word stands for all others but those of names,
/// so that it need not be found out which these are. A guest that comes in the middle reads the epoch first, as always, and finds it
/// in flight or moved.</para>
/// </remarks>
internal sealed class VersionChange : IDisposable
{
    // RENAME with EXCHANGE of two directories: two names, and both words of two parents and two moved objects.
    private const int MaxWords = 10;

    private readonly VersionTable? _table;
    private readonly DelegationTable? _delegations;
    private readonly uint[] _words = new uint[MaxWords];
    private readonly ulong[] _before = new ulong[MaxWords];
    private readonly ulong[] _after = new ulong[MaxWords];
    private int _count;
    private bool _isSettled = true;
    private bool _isOfEverything;

    /// <summary>Makes the change of a thread.</summary>
    /// <param name="versions">The table and what is in it; null when there is none.</param>
    public VersionChange(ObjectVersions? versions)
    {
        _table = versions?.Table;
        _delegations = versions?.Delegations;
    }

    /// <summary>A change that nobody keeps count of.</summary>
    public static VersionChange None { get; } = new(versions: null);

    /// <summary>The table it is counted in; null when there is none.</summary>
    public VersionTable? Table => _table;

    /// <summary>Whether the words that it affects are to be found out: it is neither uncounted nor one of everything.</summary>
    public bool NeedsWords => _table is not null && !_isOfEverything;

    /// <summary>Starts anew, affecting nothing yet, or everything.</summary>
    public VersionChange Start()
    {
        Settle(Errno.Success);
        _count = 0;
        _isSettled = _table is null;
        _isOfEverything = false;
        if (_table is { IsWatched: false })
        {
            On(VersionTableLayout.EpochWord);
            _isOfEverything = true;
        }

        return this;
    }

    /// <summary>Begins on a word. Zero, and one that was begun already, are left out.</summary>
    /// <param name="word">The word.</param>
    public VersionChange On(uint word)
    {
        if (NeedsWords && word != 0 && Find(word) < 0)
        {
            Add(word);
        }

        return this;
    }

    /// <summary>Begins on both words of an object.</summary>
    /// <param name="word">Its META word.</param>
    public VersionChange OnBoth(uint word)
    {
        if (_count > 0)
        {
            return word == 0 ? this : On(word).On(word + 1);
        }

        // Most change one object, and there is nothing to find.
        if (word != 0 && NeedsWords)
        {
            Add(word);
            Add(word + 1);
        }

        return this;
    }

    /// <summary>Begins on a word, also when the change is one of everything, unless another change of it is under way.</summary>
    /// <param name="word">The word.</param>
    /// <returns>Whether it has begun, or had already.</returns>
    public bool TryAlone(uint word)
    {
        int known = Find(word);
        if (known >= 0)
        {
            return true;
        }

        Add(word);
        if ((_before[_count - 1] & VersionWord.InFlightMask) == 0)
        {
            return true;
        }

        _count--;
        _table!.Cancel(word);
        return false;
    }

    /// <summary>The version at which a word is held that <see cref="TryAlone"/> began on.</summary>
    /// <param name="word">The word.</param>
    public ulong HeldAt(uint word) => _before[Find(word)];

    /// <summary>Nothing has been done: the words are as before, and others may be begun on. What is of everything stays so.</summary>
    public void Abandon()
    {
        int kept = _isOfEverything ? 1 : 0;
        for (int i = kept; i < _count; i++)
        {
            _table!.Cancel(_words[i]);
        }

        _count = kept;
    }

    /// <summary>The change is over.</summary>
    /// <param name="error">How it ended: what certainly means that nothing happened leaves the words as they were.</param>
    public void Settle(Errno error)
    {
        if (_isSettled)
        {
            return;
        }

        _isSettled = true;
        if (IsWithoutEffect(error))
        {
            for (int i = 0; i < _count; i++)
            {
                _table!.Cancel(_words[i]);
                _after[i] = 0;
            }

            return;
        }

        for (int i = 0; i < _count; i++)
        {
            _after[i] = _table!.End(_words[i]);
        }

        if (!_isOfEverything)
        {
            // Else there is nobody who would follow it.
            _table!.Log(_words.AsSpan(0, _count));
        }
    }

    /// <summary>
    /// The version a word had before, if nobody but us has changed it since; zero otherwise. After <see cref="Settle"/>.
    /// </summary>
    /// <param name="word">The word.</param>
    public ulong Before(uint word) => IsOurs(word, out int index) ? _before[index] : 0;

    /// <summary>The version a word has since the change, if nobody else has changed it meanwhile; zero otherwise.</summary>
    /// <param name="word">The word.</param>
    public ulong After(uint word) => IsOurs(word, out int index) ? _after[index] : 0;

    /// <summary>Ends the change, whatever has become of it.</summary>
    public void Dispose() => Settle(Errno.Success);

    private void Add(uint word)
    {
        // Or the kernel would ask for it, and the change wait for another thread of ours.
        _delegations?.GiveBack(word);
        _before[_count] = _table!.Begin(word);
        _words[_count] = word;
        _count++;
    }

    // They are few: a call of a method made for many costs more than all of them.
    private int Find(uint word)
    {
        int index = _count - 1;
        while (index >= 0 && _words[index] != word)
        {
            index--;
        }

        return index;
    }

    private bool IsOurs(uint word, out int index)
    {
        index = Find(word);
        return index >= 0 && (_before[index] & VersionWord.InFlightMask) == 0
            && _after[index] == _before[index] + VersionWord.Step;
    }

    // Refusals that come before any effect. With others, such as ENOSPC or EIO, part of it may have happened.
    private static bool IsWithoutEffect(Errno error) => error is Errno.ENOENT or Errno.EEXIST or Errno.ENOTDIR or Errno.EISDIR
        or Errno.ENOTEMPTY or Errno.EROFS or Errno.EXDEV or Errno.ENAMETOOLONG or Errno.EBADF;
}
